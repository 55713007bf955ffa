//! Bugs that a test switches on, one at a time, to prove that a harness sees them.
//!
//! In: the feature `planted`, and the name of a bug in `PENNYMILL_PLANT`. Out: whether a bug is on.
//! Invariant: without the feature no bug is, whatever the variable says, and nothing of them is left
//! in the program.

macro_rules! bugs {
    ($($(#[$what_it_breaks:meta])* $bug:ident,)+) => {
        /// What a bug breaks, where it stands in the code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Bug {
            $($(#[$what_it_breaks])* $bug,)+
        }

        impl Bug {
            pub const ALL: &'static [Bug] = &[$(Bug::$bug,)+];
        }
    };
}

bugs! {
    /// A file gets its name before it is synced.
    FileNotSynced,
    /// A folder is not synced after a name was made in it.
    NameNotSynced,
    /// A folder whose sync failed is taken for synced.
    SyncFailureIgnored,
    /// Of a gzip archive only the first member is read.
    FirstMemberOnly,
    /// An archive ends where it is damaged, as if it were whole.
    DamageIsTheEnd,
    /// An archive may swell without bound.
    SwellsUnbounded,
    /// An object may have any share of rejects.
    RejectLimitIgnored,
    /// Any commit that stands at the version is taken for our own.
    AnyCommitIsOurs,
    /// A commit whose put failed is given up without a look at the log.
    CommitAnswerBelieved,
    /// A run whose commit may still land deletes its parts.
    PartsDeletedOnError,
    /// A commit of which nothing is known is reported as published.
    UnknownIsSuccess,
    /// Nobody makes sure that the store creates a name once.
    ProbeSkipped,
    /// A local lake is not locked.
    LockIgnored,
    /// A split takes the line that starts at its end, which is the next one's.
    SplitTakesNextLine,
    /// The last line of an object is lost where it has no end.
    LastLineLost,
    /// A group's sum keeps 32 bits.
    SumOf32Bits,
    /// The quick way loses the sign of an amount.
    SignLost,
    /// The quick way keeps 32 bits of a user's id.
    UserIdCut,
    /// Between the map and the reduce, cents go to the next user.
    CentsToNextUser,
    /// What was published of a month before is not added.
    PublishedForgotten,
    /// What was read of an object stays in the sums when the object is held.
    HeldRowsStay,
    /// Somebody's choice for a seller holds for everybody.
    ChoiceOfAnother,
    /// Sellers that differ by a number alone are one seller in the memory of a worker.
    NumbersAreAlike,
    /// The ledger forgets its first object.
    LedgerForgets,
    /// An object that says the same as a counted one is counted.
    SecondDeliveryCounted,
    /// The same lines in another order are another content.
    LineOrderCounts,
    /// The same lines with other ends are other lines.
    LineEndsCount,
    /// Rows that two objects share are not told.
    OverlapNotTold,
    /// Missing nights are not told.
    GapNotTold,
    /// A month that is counted anew is added to what was published of it.
    RecountOnTop,
    /// Transactions of a month that is counted anew stay beside the new ones.
    TransactionsNotReplaced,
    /// A counted object that has changed is counted once more.
    ChangedCountedAgain,
    /// A counted object that says something else in as many bytes is taken for unchanged.
    ChangeOverlooked,
    /// The exit code does not tell of held objects.
    HeldIsFine,
    /// The rejects of a run are not kept.
    RejectsNotWritten,
    /// A rejected line is kept without its end.
    RejectLosesItsEnd,
    /// A line with a wrong number of fields is blank.
    WrongFieldsAreBlank,
    /// A local time that occurs twice means the second time.
    FoldTakesSecond,
    /// A local time that does not occur is a time.
    ClockGapAccepted,
    /// A minute has a 61st second.
    LeapSecondAccepted,
    /// The id of an alert depends on the run that said it.
    AlertIdOfRun,
    /// An alert is raised by every run that touches its month.
    AlertsRepeat,
    /// A run does not bring the other tables up to what a dead run has committed.
    CatchUpSkipped,
    /// What was delivered is forgotten while something of the same version waits.
    DeliveredAgain,
    /// Cleaning up takes what is young.
    GcIgnoresAge,
    /// Cleaning up takes what versions name.
    GcTakesNamed,
    /// Cleaning up deletes without taking the version first.
    GcTakesNoVersion,
    /// Cleaning up follows links, and deletes what lies where they lead.
    GcFollowsLinks,
    /// Cleaning up takes the names in a log as they are written, escaped or not.
    GcNamesNotDecoded,
    /// Cleaning up takes files that no run can have written.
    GcTakesUnknown,
    /// Cleaning up believes the clock of its process.
    GcBelievesProcess,
    /// Cleaning up believes the clock of whoever made a commit.
    GcBelievesWriter,
    /// Cleaning up ends where a table of others cannot be read.
    GcMindsNeighbours,
    /// A pipe is opened like a file, and waited for.
    PipeOpened,
    /// A lock that is a link is created where it leads.
    LockLinkFollowed,
    /// What is written follows links out of the lake.
    PutFollowsLinks,
    /// An audit does not hold parts to their checksums.
    AuditBlind,
    /// What a table demands of its readers and writers is not looked at.
    FeaturesIgnored,
    /// The parts that a commit comes to are not held to what was intended.
    CommitNotHeld,
    /// The tables that follow are not held to the manifests of earlier runs.
    FollowersNotHeld,
    /// A part is committed to a table that follows without a look whether it is there.
    GonePartCommitted,
    /// What a log that was cleaned up does not name is taken for never done.
    CleanedLogBelieved,
    /// Whoever writes a `run_id` into a commit is taken for a run of ours.
    RunIdIsOurs,
    /// What is lost of a month is forgotten when another month is counted anew.
    LossForgotten,
    /// A log is believed to be whole however its first commit is numbered.
    GapOverlooked,
    /// Brackets in a log may nest as deep as they like.
    NestingUnbounded,
    /// Links among the logs are followed.
    LinksFollowed,
    /// Entries that are no logs are passed over in silence.
    OddNamesPassedOver,
    /// A refused cell of a table stands in the message.
    CellInMessage,
    /// A manifest keeps the secrets of URLs.
    SecretKept,
    /// Rows of a Parquet file are not counted before they are decoded.
    FooterBoundIgnored,
    /// Of new objects whose sum is too large the one that adds least is held.
    WrongObjectHeld,
    /// Rules are compiled before they are counted.
    RulesCompiledFirst,
    /// A word that is no key is repeated.
    UnknownKeyEchoed,
    /// Of characters that nobody sees only control characters are escaped.
    BidiPrinted,
    /// A password in the URL of a store's endpoint stays in its client's messages.
    EndpointPasswordKept,
    /// Text that a spreadsheet takes for a formula is not guarded.
    FormulaRuns,
    /// An attempt to send lasts as long as the receiver likes.
    AttemptUnbounded,
    /// A mail server may say as much as it likes.
    ReplyUnbounded,
    /// A message that waits for its next attempt keeps its slot.
    WaitsInSlot,
    /// Messages of a user overtake one that waits.
    LaterOvertakes,
    /// A run sends as long as there is something to send.
    RunUnbounded,
    /// A name may stand for any address.
    PrivateAddressAllowed,
    /// The job's secret signs for every endpoint.
    OneSecretForAll,
    /// A password is sent to a distant mail server in clear.
    PasswordInClear,
    /// A question may take any memory.
    HeapUnbounded,
    /// A question may take any time.
    TimeUnbounded,
    /// What a question puts aside has a name, which stays when the process is killed.
    SpillKeepsName,
    /// A question may put aside any amount.
    SpillUnbounded,
    /// A question opens all tables of the lake.
    NeighboursOpened,
    /// A job's answer is one part, held in memory until it is whole.
    AnswerInOnePart,
    /// A job's answer may be of any size.
    AnswerUnbounded,
    /// Parts that are not what was written are answered from although they are to be verified.
    VerifyIgnored,
}

impl Bug {
    /// As `PENNYMILL_PLANT` names it.
    pub fn name(self) -> String {
        format!("{self:?}")
    }

    #[cfg(not(feature = "planted"))]
    #[inline(always)]
    pub const fn is_planted(self) -> bool {
        false
    }

    #[cfg(feature = "planted")]
    pub fn is_planted(self) -> bool {
        static PLANTED: std::sync::OnceLock<Option<Bug>> = std::sync::OnceLock::new();
        *PLANTED.get_or_init(planted) == Some(self)
    }
}

/// The bug that is asked for. A name of none ends the process: nothing would be proved by going on.
#[cfg(feature = "planted")]
fn planted() -> Option<Bug> {
    let name = std::env::var_os("PENNYMILL_PLANT")?;
    let found = Bug::ALL.iter().copied().find(|bug| name == *bug.name());
    if found.is_none() {
        eprintln!("pennymill: PENNYMILL_PLANT: there is no bug {name:?}");
        std::process::exit(2);
    }
    found
}
