//! The sections of a job file, with their defaults.
//!
//! In: TOML or JSON. Out: a struct for each section.
//! Invariant: a section that is not there is its default; every value is of its type and range.

use super::networks::Network;
use super::values::{
    AsOf, Compress, Currency, Day, Memory, Months, OneOrMore, Server, Share, SmtpTls, Text, Thresholds,
    TimeZone, Timeout,
};
use crate::domain::month::Month;
use crate::domain::seller::Country;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Input {
    pub logs: Option<String>,
    pub sellers: OneOrMore<String>,
    pub aliases: OneOrMore<String>,
    pub keywords: OneOrMore<String>,
    pub rules: OneOrMore<String>,
    pub votes: Option<String>,
    /// The weightiest first.
    pub country: OneOrMore<Country>,
    pub categories: Option<String>,
    pub category_overrides: Option<String>,
    pub users: Option<String>,
    pub budget_template: Option<String>,
    pub budget_overrides: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contacts: Option<String>,
    pub time_zone: Text<TimeZone>,
    pub months: Text<Months>,
    pub currency: Text<Currency>,
    /// Whether a job of kind `sql` holds the parts that it reads to their checksums.
    #[serde(skip_serializing)]
    pub verify: bool,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Output {
    /// Empty where a job publishes nothing that stays.
    pub lake: String,
    /// The table that a job of kind `sql` publishes; its name if not given.
    pub table: Option<String>,
    pub transactions: bool,
}

/// How budgets are recommended for the month to come.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct Recommend {
    /// The day by which spending and activity are known; that of the last counted transaction if not
    /// given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_of: Option<Text<Day>>,
    /// The share of income that no budget is made of.
    pub savings: Share,
}

impl Default for Recommend {
    fn default() -> Recommend {
        Recommend { as_of: None, savings: Share(100_000) }
    }
}

/// How messages are sent.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct Deliver {
    /// Attempts that begin in a second, over all channels.
    pub rate_per_second: f64,
    /// Of one message in a run.
    pub attempts: u32,
    /// For one attempt, from the look-up of the name to the answer.
    pub timeout_seconds: u32,
    /// After this no attempt begins: what waits is left for the next run.
    pub run_seconds_max: u32,
    /// What was said longer ago is a dead letter.
    pub age_days_max: u32,
    /// Networks that messages may go to although they are not public, or although they go there
    /// unencrypted.
    pub networks_allowed: OneOrMore<Text<Network>>,
}

impl Deliver {
    /// What no single value can show. Errors: a number out of its range.
    pub fn check(&self) -> Result<(), String> {
        let ranges = [
            ("rate_per_second", self.rate_per_second, 0.001, 100_000.0),
            ("attempts", self.attempts.into(), 1.0, 100.0),
            ("timeout_seconds", self.timeout_seconds.into(), 1.0, 600.0),
            ("run_seconds_max", self.run_seconds_max.into(), 1.0, 604_800.0),
        ];
        let out = ranges.iter().find(|(_, value, least, most)| !(*least..=*most).contains(value));
        out.map_or(Ok(()), |(key, _, least, most)| Err(format!("`deliver.{key}` must be {least} to {most}")))
    }

    pub fn networks(&self) -> Vec<Network> {
        self.networks_allowed.0.iter().map(|network| network.0).collect()
    }
}

impl Default for Deliver {
    fn default() -> Deliver {
        Deliver {
            rate_per_second: 50.0,
            attempts: 5,
            timeout_seconds: 10,
            run_seconds_max: 3600,
            age_days_max: 7,
            networks_allowed: OneOrMore::default(),
        }
    }
}

/// The mail server. The password is in the environment.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Smtp {
    pub server: Option<Text<Server>>,
    pub tls: SmtpTls,
    pub from: Option<String>,
    pub user: Option<String>,
}

/// When choices of single users speak for everybody.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct Votes {
    pub minimum: u32,
    /// Of all votes for the seller: by how much the first category must lead the second.
    pub margin: Share,
    /// Older choices do not vote.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_days_max: Option<u32>,
    /// The last day whose choices vote, and from which ages count; that of the latest choice if not
    /// given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_of: Option<Text<Day>>,
}

impl Default for Votes {
    fn default() -> Votes {
        Votes { minimum: 3, margin: Share(500_000), age_days_max: None, as_of: None }
    }
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct Alerts {
    pub thresholds: Thresholds,
    pub as_of: Text<AsOf>,
    /// The day of the month from which on spending is projected to its end; never if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pace_from_day: Option<u32>,
    /// By how much of the budget a projection must exceed it.
    pub pace_margin: Share,
}

impl Default for Alerts {
    fn default() -> Alerts {
        Alerts {
            thresholds: Thresholds::default(),
            as_of: Text(AsOf::Latest),
            pace_from_day: None,
            pace_margin: Share(100_000),
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct BudgetRules {
    /// The first month whose unspent rest is carried on; nothing is if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub roll_over_from: Option<Text<Month>>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct Limits {
    pub rejects_max_ratio: Share,
    pub memory: Text<Memory>,
    pub threads: usize,
    /// Of a question in SQL, which leaves no manifest: how long it may take,
    #[serde(skip_serializing)]
    pub timeout: Text<Timeout>,
    /// what it may put aside in the temporary folder,
    #[serde(skip_serializing)]
    pub spill: Text<Memory>,
    /// and what a job may publish of its answer.
    #[serde(skip_serializing)]
    pub answer: Text<Memory>,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            rejects_max_ratio: Share(1000),
            memory: Text(Memory(4 << 30)),
            threads: 0,
            timeout: Text(Timeout(6 * 3600)),
            spill: Text(Memory(64 << 30)),
            answer: Text(Memory(64 << 30)),
        }
    }
}

/// What a job of kind `bench` generates, and how often it runs over it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct Bench {
    pub rows: u64,
    pub users: u64,
    pub sellers: u32,
    pub months: Text<Months>,
    pub files: u32,
    pub seed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compress: Option<Compress>,
    /// Those that are timed; one more comes before them, to warm up.
    pub runs: u32,
}

impl Default for Bench {
    fn default() -> Bench {
        Bench {
            rows: 1_000_000,
            users: 50_000,
            sellers: 50_000,
            months: Text("2025-01..2025-03".parse().expect("a range of months")),
            files: 4,
            seed: 7,
            compress: None,
            runs: 5,
        }
    }
}
