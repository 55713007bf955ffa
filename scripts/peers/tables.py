"""DuckDB queries of scripts/compare-peers: the sellers of a dataset, and the comparison of answers.

    python tables.py printed-sellers LOGS LOG      the distinct sellers of LOGS, as a log for pennymill
    python tables.py seller-table LOG PARTS OUT    pennymill's categories for that log, as OUT.parquet, OUT.csv
    python tables.py compare PARTS OUT             the difference of an engine's answer from pennymill's, as JSON

PARTS is a JSON list of pennymill's live Parquet files, in folders `month=YYYY-MM-01`. All output goes to
the named files or to stdout; sellers, users and amounts are never printed.
"""

import json
import sys

import duckdb

TYPES = {
    "month": "DATE",
    "user_id": "BIGINT",
    "category": "VARCHAR",
    "amount": "DECIMAL(18,2)",
    "transaction_count": "BIGINT",
}


def raw_log(path):
    """SQL that reads a raw log, which has no quoting."""
    return f"""read_csv('{path}', auto_detect = false, header = false, delim = '\t', quote = '', escape = '',
        columns = {{'user_id': 'BIGINT', 'timestamp': 'VARCHAR', 'seller': 'VARCHAR', 'amount': 'VARCHAR'}})"""


def published(parts):
    """SQL that reads pennymill's published table; the month is only in the path."""
    return f"read_parquet({json.loads(parts)}, hive_partitioning = true, hive_types = {{'month': DATE}})"


def printed_sellers(logs, log):
    """Write a log with one transaction of each distinct seller; its user is the seller's number."""
    sellers = duckdb.sql(f"SELECT DISTINCT seller FROM {raw_log(logs + '/*.tsv')} ORDER BY seller")
    with open(log, "w", encoding="utf-8", newline="") as file:
        for number, (seller,) in enumerate(sellers.fetchall()):
            file.write(f"{number}\t2025-01-01\t{seller}\t1.00\n")


def seller_table(log, parts, out):
    """Write OUT.parquet and OUT.csv: each seller as printed, with pennymill's category."""
    duckdb.sql(f"""
        CREATE TABLE sellers AS
        SELECT seller, category FROM {raw_log(log)} JOIN {published(parts)} USING (user_id) ORDER BY seller""")
    duckdb.sql(f"COPY sellers TO '{out}.parquet' (FORMAT parquet, COMPRESSION zstd)")
    duckdb.sql(f"COPY sellers TO '{out}.csv' (FORMAT csv, HEADER true)")
    printed, categorized = duckdb.sql(f"""
        SELECT (SELECT count(*) FROM {raw_log(log)}), count(*) FROM sellers""").fetchall()[0]
    print(json.dumps({"printed": printed, "categorized": categorized}))


def compare(parts, out):
    """Print the number of pennymill's groups, and of groups not exactly once on both sides with equal values."""
    answer = duckdb.sql(f"SELECT * FROM read_parquet('{out}/*.parquet')")
    types = {name: str(type) for name, type in zip(answer.columns, answer.types)}
    wrong = sorted(name for name in TYPES.keys() | types.keys() if TYPES.get(name) != types.get(name))
    result = {"wrong_columns": wrong}
    if not wrong:
        columns = ", ".join(TYPES)
        result["groups"], result["different"] = duckdb.sql(f"""
            SELECT count(*) FILTER (ours > 0),
                   count(*) FILTER (ours <> 1 OR theirs <> 1 OR amounts <> 2 OR counts <> 2
                                    OR low <> high OR few <> many)
            FROM (
                SELECT count(*) FILTER (ours) AS ours, count(*) FILTER (NOT ours) AS theirs,
                       count(amount) AS amounts, min(amount) AS low, max(amount) AS high,
                       count(transaction_count) AS counts,
                       min(transaction_count) AS few, max(transaction_count) AS many
                FROM (SELECT {columns}, true AS ours FROM {published(parts)}
                      UNION ALL SELECT {columns}, false FROM answer)
                GROUP BY month, user_id, category
            )""").fetchall()[0]
    print(json.dumps(result))


if __name__ == "__main__":
    {"printed-sellers": printed_sellers, "seller-table": seller_table, "compare": compare}[sys.argv[1]](*sys.argv[2:])
