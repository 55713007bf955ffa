// Derives the seller dictionary from name-suggestion-index: the category of each name on a card
// statement, by country.
//
//   npm ci && node build.mjs ../../src/input/builtin/sellers.tsv

import { readFileSync, writeFileSync } from "node:fs";
import { feature, featuresIn, iso1A2Code } from "@rapideditor/country-coder";

const CATEGORIES = new Set(
  ("housing utilities groceries dining gas auto transport travel shopping home health personal_care " +
    "entertainment education services fees government charity cash transfer income").split(" "),
);
const isCategory = (category) => category === "-" || CATEGORIES.has(category); // "-": leave out
const ANYWHERE = "";
const COUNTRIES_MAX = 60; // A name found in more countries than this counts as found anywhere.
const NAMES_MIN = 40_000;
const BYTES_MAX = 2_500_000;
const CORRECTION_WEIGHT = 1_000; // More than any weight of the mapping.

const fail = (message) => {
  console.error(`build.mjs: ${message}`);
  process.exit(1);
};
const index = (path) =>
  JSON.parse(readFileSync(new URL(`node_modules/name-suggestion-index/${path}`, import.meta.url), "utf8"));
/** Rows of a tab-separated file beside this script, without its header and its `#` lines. */
const table = (file, header) => {
  const lines = readFileSync(new URL(file, import.meta.url), "utf8").split("\n");
  const rows = lines.filter((line) => line && !line.startsWith("#")).map((line) => line.split("\t"));
  if (rows.shift()?.join() !== header.join()) fail(`${file}: the header is not ${header.join(" ")}`);
  const odd = rows.find((row) => row.length !== header.length);
  if (odd) fail(`${file}: not ${header.length} columns: ${odd.join(" ")}`);
  return rows;
};

// --- The mapping of tag paths to categories -----------------------------------------------------

const mapping = new Map();
for (const [path, category, weight] of table("osm_categories.tsv", ["path", "category", "weight"])) {
  if (mapping.has(path)) fail(`osm_categories.tsv: ${path} stands there twice`);
  if (!isCategory(category)) fail(`osm_categories.tsv: ${path}: no category ${category}`);
  if (!/^(\d{1,2}|100)$/.test(weight)) fail(`osm_categories.tsv: ${path}: no weight ${weight}`);
  mapping.set(path, { category, weight: Number(weight), used: false });
}
const ruleOf = (path) => {
  const rule = mapping.get(path) ?? mapping.get(path.replace(/[^/]+$/, "*"));
  if (!rule) fail(`osm_categories.tsv does not cover ${path}`);
  rule.used = true;
  return rule;
};

// --- Places -------------------------------------------------------------------------------------

// Areas that are not a country to country-coder, but are treated as one here: mainland China,
// metropolitan France, Denmark without its islands, Northern Cyprus.
const WHOLE = { Q19188: "cn", Q212429: "fr", Q35: "dk", Q23681: "cy" };
const isCountry = ({ iso1A2, isoStatus }) => iso1A2 && (isoStatus === "official" || iso1A2 === "XK");
const outlines = new Map(index("dist/json/featureCollection.json").features.map((f) => [f.id, f.geometry]));

/** The country of an outline: named as in `us-ca.geojson`, else the one with most of its corners. */
const countryOfOutline = (id) => {
  const named = /^([a-z]{2})-/.exec(id)?.[1];
  if (named && feature(named)) return isCountry(feature(named).properties) ? named : undefined;
  const corners = outlines.get(id)?.coordinates.flat(Infinity) ?? [];
  const votes = new Map();
  for (let i = 0; i + 1 < corners.length; i += 2) {
    const code = iso1A2Code([corners[i], corners[i + 1]], { level: "territory" })?.toLowerCase();
    if (code) votes.set(code, (votes.get(code) ?? 0) + 1);
  }
  return [...votes].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1))[0]?.[0];
};

const known = new Map();
/** One entry of a locationSet: its countries, and whether it covers them completely. */
const placeOf = (location) => {
  const id = String(location);
  if (!known.has(id)) known.set(id, resolvePlace(location, id));
  return known.get(id);
};
const resolvePlace = (location, id) => {
  const at = (whole, ...codes) => {
    if (!codes.every((code) => /^[a-z]{2}$/i.test(code))) fail(`no country for the place ${id}`);
    return { whole, countries: codes.map((code) => code.toLowerCase()) };
  };
  if (Array.isArray(location)) {
    // Wind farms and pipelines at sea are outside any country, and are not paid by card.
    const code = iso1A2Code(location.slice(0, 2), { level: "territory" });
    return code ? at(false, code) : at(false);
  }
  if (id.endsWith(".geojson")) return at(false, countryOfOutline(id) ?? "");
  const place = feature(id)?.properties;
  if (!place) return at(false, /^[a-z]{2}-/.test(id) ? id.slice(0, 2) : "");
  if (WHOLE[place.wikidata]) return at(true, WHOLE[place.wikidata]);
  if (isCountry(place)) return at(true, place.iso1A2);
  if (place.country) return at(false, place.country);
  const parts = featuresIn(id).map((f) => f.properties).filter(isCountry).map((p) => p.iso1A2);
  return parts.length ? at(true, ...parts) : at(true, "");
};
/** The countries of a seller (null for everywhere), and the countries it is excluded from. */
const placesOf = ({ include, exclude = [] }) => {
  if (!include?.length) fail("a locationSet without include");
  const without = new Set(exclude.map(placeOf).filter((p) => p.whole).flatMap((p) => p.countries));
  const countries = new Set(include.flatMap((l) => (l === "001" ? [] : placeOf(l).countries)));
  if (include.includes("001") || countries.size > COUNTRIES_MAX) return { countries: null, without };
  without.forEach((country) => countries.delete(country));
  return { countries, without };
};

// --- Names --------------------------------------------------------------------------------------

/** Names that differ only by case, accents, punctuation, spaces or "and" are one name. */
const fold = (name) =>
  name.normalize("NFKD").toLowerCase().normalize("NFKD")
    .replace(/[\p{M}'’‘`´ʼ]/gu, "")
    .replace(/(?<![\p{L}\p{N}])and(?![\p{L}\p{N}])/gu, "")
    .replace(/[^\p{L}\p{N}]/gu, "");

const NAME_TAGS = ["name", "name:en", "official_name", "short_name", "alt_name"];
const OWNER_TAGS = ["brand", "brand:en", "operator", "operator:en", "network", "network:en", "old_name"];
const SHORT_TAGS = ["brand:short", "operator:short", "network:short"];

/**
 * The names of an item, and separately its hints: aliases, old names, and the owner of a shop that
 * has its own name ("Tesco" for a Tesco Café).
 */
const namesOf = ({ displayName, tags, matchNames = [] }, tree) => {
  // A brand may have two letters ("EE"), but for a school board or a bus they are too ambiguous.
  const isTooShort = (text) => [...fold(text)].length < (tree !== "brands" && /^[\x00-\x7f]*$/.test(text) ? 3 : 2);
  const isTooLong = (text) => Buffer.byteLength(text) > 255; // The limit of sellers in logs.
  const values = (keys) => keys.map((key) => tags[key] ?? "");
  const split = (texts) =>
    texts.flatMap((text) => text.split(/;| \/ /))
      // "Target (USA)": the brackets distinguish items of the index and are not printed.
      .map((text) => text.replace(/\s*\([^()]*\)\s*$/, ""))
      .map((text) => text.replace(/[\t\r\n"]/g, " ").replace(/ +/g, " ").trim())
      .filter((text) => !isTooShort(text) && !isTooLong(text) && !/^[a-z]+:\S/.test(text)); // "http://…", "cz:dpp"
  const own = split([displayName, ...values(NAME_TAGS), ...(tags.name ? [] : values(OWNER_TAGS.slice(0, -1)))]);
  const short = split(values(SHORT_TAGS)).filter((text) => [...fold(text)].length > 2);
  const hints = [...split([...matchNames, ...values(OWNER_TAGS)]), ...short]
    .filter((text) => /\p{L}/u.test(text)); // "02" for O2: too short a hint.
  return { own: [...new Set(own)], hints: [...new Set(hints)].filter((text) => !own.includes(text)) };
};

// A council runs schools, libraries, car parks and playing fields, so all payments to it count as
// government, except for electricity and water.
const COUNCIL = { category: "government", weight: 41 };
const COUNCIL_NAME = new RegExp(
  [
    "^(city|town|township|village|county|borough|municipality) of ",
    "^(comune|commune|mairie|ville|ayuntamiento|ajuntament|concello|prefeitura|municipalidad) ",
    "^(gemeente|gemeinde|stadt|landeshauptstadt|hansestadt|samtgemeinde|verbandsgemeinde|landkreis) ",
    "^(gmina|miasto|město|mesto) |(council|kommun|kommune|kaupunki|kunta|belediyesi|市)$",
  ].join("|"),
  "iu",
);
const NO_COUNCIL_NAME = /school|schul|academ|educa|universit|librar|trust|hospital/iu;
const isCouncil = (name) => COUNCIL_NAME.test(name) && !NO_COUNCIL_NAME.test(name);

// --- Collecting ---------------------------------------------------------------------------------

const nsi = index("dist/json/nsi.json").nsi;
const notNames = index("config/genericWords.json").genericWords.map((word) => new RegExp(word, "i"));
const sellers = new Map(); // folded name -> its spellings and claims
const counts = { items: 0, generic: 0, tied: 0 };

const sellerOf = (name) => {
  const key = fold(name);
  if (!sellers.has(key)) sellers.set(key, { spellings: new Map(), claims: [] });
  return sellers.get(key);
};
const claim = (name, standing, claimed) => {
  const { spellings, claims } = sellerOf(name);
  spellings.set(name, (spellings.get(name) ?? 0) + standing);
  claims.push(claimed);
};

for (const path of Object.keys(nsi).sort()) {
  const rule = ruleOf(path);
  if (rule.category === "-") continue;
  const tree = path.split("/")[0];
  const notHere = (nsi[path].properties.exclude?.generic ?? []).map((word) => new RegExp(word, "i"));
  const generic = [...notNames, ...notHere];
  for (const item of nsi[path].items) {
    counts.items += 1;
    const place = placesOf(item.locationSet);
    const { own, hints } = namesOf(item, tree);
    const isCouncils = tree === "operators" && rule.category !== "utilities" && isCouncil(own[0]);
    const { category, weight } = isCouncils ? COUNCIL : rule;
    const isName = (name) => !generic.some((word) => word.test(name)) || (counts.generic++, false);
    // A hint has half the weight: a shop with exactly that name is more likely. The index spells
    // hints in lower case, so their spelling is used only if there is no other.
    own.filter(isName).forEach((name) => claim(name, 1_000, { category, weight, ...place }));
    hints.filter(isName).forEach((name) => claim(name, 1, { category, weight: weight / 2, ...place }));
  }
}
for (const [path, { used }] of mapping) if (!used) fail(`osm_categories.tsv: ${path} is no path of the package`);

for (const [seller, category, country, why] of table("corrections.tsv", ["seller", "category", "country", "why"])) {
  if (!isCategory(category)) fail(`corrections.tsv: ${seller}: no category ${category}`);
  if (!why) fail(`corrections.tsv: ${seller}: no reason`);
  const countries = country ? new Set(country.split(" ")) : null;
  if (category !== "-") {
    claim(seller, 10_000, { category, weight: CORRECTION_WEIGHT, countries, without: new Set() });
    continue;
  }
  const found = sellers.get(fold(seller));
  if (!found) fail(`corrections.tsv: ${seller} is no name to leave out`);
  found.claims = found.claims.flatMap((c) => {
    if (!countries || !c.countries) return countries || c.countries ? [c] : [];
    return [{ ...c, countries: new Set([...c.countries].filter((code) => !countries.has(code))) }];
  });
}

// --- Deciding -----------------------------------------------------------------------------------

/** The category with the greatest weight; null for a tie. */
const heaviest = (claims) => {
  const weight = Math.max(0, ...claims.map((c) => c.weight));
  const categories = new Set(claims.filter((c) => c.weight === weight).map((c) => c.category));
  return { weight, category: categories.size === 1 ? [...categories][0] : null };
};

const rows = [];
for (const [key, { spellings, claims }] of sellers) {
  const everywhere = claims.filter((c) => !c.countries);
  const anywhere = heaviest(everywhere);
  if (everywhere.length && !anywhere.category) counts.tied += 1;
  const places = new Map(); // category -> countries
  if (anywhere.category) places.set(anywhere.category, new Set([ANYWHERE]));
  for (const country of new Set(claims.flatMap((c) => [...(c.countries ?? [])]))) {
    // A seller of this country beats one of everywhere with no greater weight, or one excluded
    // from this country.
    const here = heaviest(claims.filter((c) => c.countries?.has(country)));
    const elsewhere = heaviest(everywhere.filter((c) => !c.without.has(country)));
    if (!here.weight || here.weight < elsewhere.weight) continue;
    if (!here.category) counts.tied += 1;
    if (!here.category || here.category === anywhere.category) continue;
    if (!places.has(here.category)) places.set(here.category, new Set());
    places.get(here.category).add(country);
  }
  // The most frequent spelling; among equally frequent ones the one with the fewest capitals inside
  // words: "Boots" rather than "BOOTS" or "boots".
  const oddness = (text) => (/\p{Lu}/u.test(text) ? (text.match(/(?<=\p{L})\p{Lu}/gu)?.length ?? 0) : 1_000);
  const [shown] = [...spellings].sort(
    (a, b) => b[1] - a[1] || oddness(a[0]) - oddness(b[0]) || a[0].length - b[0].length || (a[0] < b[0] ? -1 : 1),
  )[0];
  for (const [category, countries] of places) {
    rows.push({ key, category, line: [shown, category, [...countries].sort().join(" ")].join("\t") });
  }
}

// --- Writing ------------------------------------------------------------------------------------

const order = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
rows.sort((a, b) => order(a.key, b.key) || order(a.category, b.category));
const text = ["seller\tcategory\tcountry", ...rows.map((row) => row.line), ""].join("\n");
const names = new Set(rows.map((row) => row.key)).size;
const bytes = Buffer.byteLength(text);
if (names < NAMES_MIN) fail(`${names} names are fewer than ${NAMES_MIN}`);
if (bytes > BYTES_MAX) fail(`${bytes} bytes are more than ${BYTES_MAX}`);
const target = process.argv[2] ?? fail("usage: node build.mjs FILE");
writeFileSync(target, text);
console.error(
  `items ${counts.items}, names ${names}, rows ${rows.length}, bytes ${bytes}; dropped: ${sellers.size - names} names, ` +
    `${counts.generic} generic words; ${counts.tied} times a name was left open in a country by a tie`,
);
