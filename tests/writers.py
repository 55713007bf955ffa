"""What other programs do to the tables of a lake, by a library that knows nothing of ours.

usage: writers.py ACTION TABLE_FOLDER [ACTION TABLE_FOLDER ...]
"""

import sys

from deltalake import DeltaTable, write_deltalake


def act(action, folder):
    table = DeltaTable(folder)
    if action == "constraint":
        table.alter.add_constraint({"positive": "user_id >= 0"})
    elif action == "change data feed":
        table.alter.set_table_properties({"delta.enableChangeDataFeed": "true"})
    elif action == "append only":
        table.alter.set_table_properties({"delta.appendOnly": "true"})
    elif action == "checkpoint":
        table.create_checkpoint()
    elif action == "optimize":
        table.optimize.compact()
    elif action == "vacuum":
        table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    elif action == "append":
        write_deltalake(folder, table.to_pyarrow_table().slice(0, 1), mode="append")
    elif action == "delete":
        table.delete("user_id = 1")
    elif action == "restore":
        table.restore(table.version() - 1)
    else:
        sys.exit(f"no action {action}")


for action, folder in zip(sys.argv[1::2], sys.argv[2::2]):
    act(action, folder)
