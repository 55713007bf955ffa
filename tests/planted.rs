//! Harnesses that cannot fail prove nothing: each bug that can be planted has to be caught by one.
//!
//! In: the bugs, and the tests that are to see them, started again in processes of their own. Out: what
//! was caught, and by whom.
//! Invariant: a harness passes without a bug and fails with it; the documents name both.

use crate::support::Scratch;
use pennymill::planted::Bug::{self, *};

/// Each bug, and the test that has to fail with it.
const CAUGHT_BY: &[(Bug, &str)] = &[
    (FileNotSynced, "order::everything_is_synced_before_it_is_named_and_named_before_the_commit"),
    (NameNotSynced, "order::everything_is_synced_before_it_is_named_and_named_before_the_commit"),
    (SyncFailureIgnored, "machine::what_cannot_be_synced_is_not_acknowledged"),
    (FirstMemberOnly, "bad_input::members_make_one_log_and_nothing_else_may_follow_them"),
    (DamageIsTheEnd, "bad_input::an_archive_cut_at_any_byte_is_damaged"),
    (SwellsUnbounded, "nightly::archives_that_break_off_are_held_and_harm_nobody"),
    (RejectLimitIgnored, "nightly::an_object_with_too_many_rejects_is_held_until_the_job_lets_it_in"),
    (AnyCommitIsOurs, "races::logs_of_their_own_are_all_counted"),
    (CommitAnswerBelieved, "proxy::whatever_befalls_the_commit_the_night_is_published"),
    (PartsDeletedOnError, "proxy::a_commit_that_lands_late_is_published_or_refused_whole"),
    (UnknownIsSuccess, "proxy::a_commit_that_lands_late_is_published_or_refused_whole"),
    (ProbeSkipped, "proxy::a_store_that_overwrites_what_is_created_twice_is_refused"),
    (LockIgnored, "races::on_local_files_a_run_is_refused_while_another_is_at_work"),
    (SplitTakesNextLine, "equivalence::hostile_logs_mean_what_the_oracle_says_however_they_are_cut"),
    (LastLineLost, "books::rejected_lines_come_back_as_they_stood"),
    (SumOf32Bits, "equivalence::names_and_order_of_inputs_do_not_change_what_is_published"),
    (SignLost, "bad_lines::every_short_amount_in_a_line_means_what_the_grammar_says"),
    (UserIdCut, "slices::a_users_slice_of_a_run_is_a_run_over_the_users_slice"),
    (
        CentsToNextUser,
        "nightly::the_sample_job_publishes_what_its_readme_says_and_a_second_start_finds_nothing",
    ),
    (PublishedForgotten, "nightly::a_new_file_is_all_the_next_run_reads_and_only_its_months_are_rewritten"),
    (HeldRowsStay, "bad_input::of_a_cut_archive_nothing_is_counted_and_its_neighbours_are"),
    (ChoiceOfAnother, "slices::a_users_slice_of_a_run_is_a_run_over_the_users_slice"),
    (NumbersAreAlike, "categories::what_is_remembered_of_a_seller_is_what_would_be_found"),
    (
        LedgerForgets,
        "nightly::the_sample_job_publishes_what_its_readme_says_and_a_second_start_finds_nothing",
    ),
    (
        SecondDeliveryCounted,
        "deliveries_of_logs::a_duplicate_counts_when_it_is_let_in_by_name_and_only_that_one",
    ),
    (LineOrderCounts, "nightly::a_second_delivery_is_held_and_named_until_it_goes"),
    (LineEndsCount, "deliveries_of_logs::overlaps_are_told_to_the_row_and_nothing_is_dropped"),
    (OverlapNotTold, "deliveries_of_logs::overlaps_are_told_to_the_row_and_nothing_is_dropped"),
    (GapNotTold, "deliveries_of_logs::missing_nights_are_told"),
    (
        RecountOnTop,
        "deliveries_of_logs::a_changed_object_is_restated_with_all_the_months_it_touched_or_touches",
    ),
    (TransactionsNotReplaced, "nightly::a_month_is_rebuilt_from_its_raw_logs_with_the_dictionary_of_today"),
    (ChangedCountedAgain, "nightly::the_same_file_by_another_spelling_is_the_same_file"),
    (ChangeOverlooked, "nightly::a_counted_file_that_changes_is_held_and_one_that_is_only_touched_is_not"),
    (HeldIsFine, "nightly::a_file_that_the_store_hides_is_held_aloud"),
    (RejectsNotWritten, "books::rejected_lines_come_back_as_they_stood"),
    (RejectLosesItsEnd, "equivalence::hostile_logs_mean_what_the_oracle_says_however_they_are_cut"),
    (WrongFieldsAreBlank, "bad_lines::odd_bytes_elsewhere_are_refused_where_they_stand"),
    (FoldTakesSecond, "bad_lines::every_minute_round_each_change_of_clocks_means_what_the_zone_says"),
    (ClockGapAccepted, "bad_lines::every_minute_round_each_change_of_clocks_means_what_the_zone_says"),
    (
        LeapSecondAccepted,
        "bad_lines::the_first_and_the_last_year_have_months_and_no_day_has_a_24th_hour_or_a_61st_second",
    ),
    (AlertIdOfRun, "machine::a_report_that_nobody_can_read"),
    (AlertsRepeat, "nightly::alerts_come_once_net_of_refunds_and_for_one_month"),
    (CatchUpSkipped, "alerts::what_was_said_is_what_must_have_been_said"),
    (DeliveredAgain, "deliver::a_delivery_that_is_killed_goes_on_where_it_was"),
    (GcIgnoresAge, "books::cleaning_up_takes_what_nobody_needs_and_takes_the_version_first"),
    (GcTakesNamed, "races::a_run_that_stalls_on_s3_while_others_publish_and_clean_up"),
    (GcTakesNoVersion, "books::cleaning_up_takes_what_nobody_needs_and_takes_the_version_first"),
    (GcFollowsLinks, "cleaning::links_are_reported_and_what_lies_behind_them_stays"),
    (GcNamesNotDecoded, "cleaning::whatever_a_log_names_stays_however_it_is_written"),
    (GcTakesUnknown, "cleaning::files_that_no_run_can_have_written_are_counted_and_left"),
    (GcBelievesProcess, "cleaning::a_clock_that_is_wrong_deletes_nothing"),
    (GcBelievesWriter, "cleaning::the_clock_of_a_writer_makes_no_version_old"),
    (GcMindsNeighbours, "cleaning::neighbours_that_cannot_be_read_are_reported_and_left_alone"),
    (PipeOpened, "pipes::a_pipe_is_refused_at_once_wherever_it_lies"),
    (LockLinkFollowed, "pipes::a_lock_that_is_a_link_is_refused_and_makes_nothing"),
    (PutFollowsLinks, "pipes::nothing_is_written_through_a_link_in_a_lake"),
    (AuditBlind, "books::an_audit_finds_what_was_tampered_with"),
    (
        FeaturesIgnored,
        "lake_of_others::what_needs_features_that_we_do_not_apply_is_refused_before_anything_is_read",
    ),
    (CommitNotHeld, "lake_of_others::a_commit_that_would_not_replace_a_part_is_not_made"),
    (CleanedLogBelieved, "lake_of_others::nothing_is_filled_again_that_a_log_may_have_forgotten"),
    (
        RunIdIsOurs,
        "lake_of_others::what_another_program_deletes_stays_deleted_whatever_it_notes_in_its_commit",
    ),
    (LossForgotten, "lake_of_others::what_is_lost_of_a_month_is_missed_until_that_month_is_counted_anew"),
    (FollowersNotHeld, "restores::a_table_that_follows_is_filled_again_with_every_run_that_it_lacks"),
    (GonePartCommitted, "restores::a_part_that_is_gone_is_named_and_no_hole_is_committed"),
    (GapOverlooked, "lake_of_others::a_log_with_a_gap_or_a_cut_commit_is_refused_by_name"),
    (NestingUnbounded, "lake_of_others::brackets_nest_to_a_bound_wherever_they_stand"),
    (LinksFollowed, "bad_input::a_link_among_the_logs_is_held_and_not_followed"),
    (OddNamesPassedOver, "bad_input::whatever_its_name_a_file_is_counted_or_held"),
    (CellInMessage, "privacy::tables_jobs_and_questions_that_are_refused_are_not_repeated"),
    (SecretKept, "privacy::runs_that_succeed_or_hold_their_logs_tell_and_keep_nothing"),
    (FooterBoundIgnored, "bounds::a_small_table_of_very_many_rows_is_refused_before_it_is_decoded"),
    (WrongObjectHeld, "bounds::of_objects_whose_sum_is_too_large_the_largest_is_held_until_there_is_room"),
    (RulesCompiledFirst, "bounds::rules_are_counted_before_they_are_compiled"),
    (UnknownKeyEchoed, "privacy::files_that_are_no_tables_and_no_jobs_stay_secret"),
    (BidiPrinted, "privacy::what_hides_in_a_name_is_shown"),
    (EndpointPasswordKept, "privacy::passwords_in_the_urls_of_endpoints_and_proxies_are_told_to_nobody"),
    (FormulaRuns, "questions::raw_logs_are_a_table_parsed_by_the_same_kernel"),
    (AttemptUnbounded, "deliver_hangs::a_mail_server_that_stops_anywhere_hangs_nobody"),
    (ReplyUnbounded, "deliver_hangs::a_mail_server_cannot_fill_the_memory"),
    (WaitsInSlot, "deliver_slow::a_thousand_slow_receivers_keep_neither_slots_nor_the_run"),
    (LaterOvertakes, "deliver::alerts_arrive_in_order_at_a_receiver_that_fails"),
    (RunUnbounded, "deliver_hangs::after_its_deadline_a_run_leaves_the_rest_for_the_next_one"),
    (PrivateAddressAllowed, "deliver_addresses::nothing_inside_is_connected_to"),
    (
        OneSecretForAll,
        "deliver_secrets::a_receivers_secret_signs_for_no_other_and_two_while_one_takes_the_place_of_the_other",
    ),
    (
        PasswordInClear,
        "deliver_secrets::mail_in_clear_goes_to_this_machine_or_into_a_network_that_the_job_names",
    ),
    (HeapUnbounded, "hostile_questions::every_hostile_question_ends_with_its_code_and_within_its_memory"),
    (TimeUnbounded, "hostile_questions::a_question_ends_when_its_time_is_over"),
    (SpillKeepsName, "hostile_questions::what_is_put_aside_vanishes_however_the_process_ends"),
    (SpillUnbounded, "hostile_questions::what_is_put_aside_has_a_cap"),
    (NeighboursOpened, "neighbours::a_table_that_is_broken_disturbs_only_who_asks_for_it"),
    (
        AnswerInOnePart,
        "hostile_questions::a_jobs_answer_is_published_whatever_its_size_and_within_its_bounds",
    ),
    (
        AnswerUnbounded,
        "hostile_questions::a_jobs_answer_is_published_whatever_its_size_and_within_its_bounds",
    ),
    (VerifyIgnored, "neighbours::parts_are_held_to_their_checksums_where_that_is_asked_for"),
];

#[cfg(not(feature = "planted"))]
const _: () = {
    let mut number = 0;
    while number < Bug::ALL.len() {
        assert!(!Bug::ALL[number].is_planted(), "the compiler itself knows that no bug is on");
        number += 1;
    }
};

#[test]
fn a_name_of_no_bug_is_refused_by_a_program_with_bugs_and_nothing_to_any_other() {
    let scratch = Scratch::new().environment("PENNYMILL_PLANT", "NoSuchBug");
    scratch.write("logs/a.tsv", "1\t2025-01-10T10:00:00Z\tShop\t10.00\n");
    let said = scratch.run(&[]);
    assert_eq!(said.code, if cfg!(feature = "planted") { 2 } else { 0 }, "{}", said.stderr);
}

#[test]
fn the_documents_name_every_bug_and_who_catches_it() {
    let documents = include_str!("../docs/reliability.md");
    for bug in Bug::ALL {
        let harnesses = CAUGHT_BY.iter().filter(|(planted, _)| planted == bug);
        let harnesses: Vec<&str> = harnesses.map(|(_, harness)| *harness).collect();
        assert_eq!(harnesses.len(), 1, "{bug:?}: {harnesses:?}");
        let row = documents.lines().find(|line| line.starts_with(&format!("| `{bug:?}` |")));
        let row = row.unwrap_or_else(|| panic!("docs/reliability.md does not name {bug:?}"));
        assert!(row.ends_with(&format!("| `{}` |", harnesses[0])), "{row}");
    }
    let rows = documents.lines().filter(|line| line.ends_with("` |") && line.contains("::")).count();
    assert_eq!(rows, Bug::ALL.len(), "docs/reliability.md names bugs that there are not");
}

#[cfg(feature = "planted")]
mod harnesses {
    use super::{Bug, CAUGHT_BY};
    use crate::support::say;
    use std::collections::BTreeSet;
    use std::process::Command;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    /// Processes at work at the same time: each has threads of its own.
    const AT_ONCE: usize = 2;

    /// A bug or none, and the test to start with it.
    type Start = (Option<Bug>, &'static str);

    /// How a test ended that was started with a bug, or with none.
    struct Ended {
        bug: Option<Bug>,
        harness: &'static str,
        code: Option<i32>,
        took: Duration,
        output: String,
    }

    impl Ended {
        /// A machine that lacks what a test needs is told so.
        fn is_skipped(&self) -> bool {
            self.output.lines().any(|line| line.starts_with("skipped:"))
        }

        /// As the test harness ends: 101 of a failure.
        fn has_failed(&self) -> bool {
            self.code == Some(101)
        }
    }

    fn run(bug: Option<Bug>, harness: &'static str) -> Ended {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([harness, "--exact", "--nocapture", "--test-threads=1"]);
        for name in ["PENNYMILL_PLANT", "PENNYMILL_ROUNDS", "PENNYMILL_SEED"] {
            command.env_remove(name);
        }
        command.envs(bug.map(|bug| ("PENNYMILL_PLANT", bug.name())));
        let started = Instant::now();
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        Ended { bug, harness, code: output.status.code(), took: started.elapsed(), output: text }
    }

    /// Runs all of them, in their order as far as there is room.
    fn run_all(wanted: &[Start]) -> Vec<Ended> {
        let (next, ended) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE.min(wanted.len()) {
                scope.spawn(|| {
                    while let Some(&(bug, harness)) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let run = run(bug, harness);
                        ended.lock().unwrap().push(run);
                    }
                });
            }
        });
        let mut ended = ended.into_inner().unwrap();
        let place = |run: &Ended| wanted.iter().position(|wanted| *wanted == (run.bug, run.harness));
        ended.sort_by_key(place);
        ended
    }

    fn row(what: &str, run: &Ended) -> String {
        format!("{what:<24} {:>6.1} s  {}", run.took.as_secs_f64(), run.harness)
    }

    #[test]
    fn every_planted_bug_is_caught() {
        let harnesses: BTreeSet<&str> = CAUGHT_BY.iter().map(|(_, harness)| *harness).collect();
        let without: Vec<Start> = harnesses.into_iter().map(|harness| (None, harness)).collect();
        let sound = run_all(&without);
        let mut lines: Vec<String> = sound.iter().map(|run| row("(none)", run)).collect();
        for run in &sound {
            // One that always fails would catch everything, and one that is not there nothing.
            let has_passed = run.code == Some(0) && run.output.contains("1 passed");
            assert!(has_passed, "without a bug: {}: {:?}\n{}", run.harness, run.code, run.output);
        }
        let unable: Vec<&str> = sound.iter().filter(|run| run.is_skipped()).map(|run| run.harness).collect();
        let able = CAUGHT_BY.iter().filter(|(_, harness)| !unable.contains(harness));
        let wanted: Vec<Start> = able.map(|(bug, harness)| (Some(*bug), *harness)).collect();
        let planted = run_all(&wanted);
        let (mut caught, mut missed) = (0, Vec::new());
        for run in &planted {
            let name = run.bug.map(Bug::name).unwrap_or_default();
            lines.push(row(&name, run));
            match run.has_failed() && !run.is_skipped() {
                true => caught += 1,
                false => missed.push(format!("{name}: {:?}\n{}", run.code, run.output)),
            }
        }
        say(&lines.join("\n"));
        if planted.len() < CAUGHT_BY.len() {
            let count = CAUGHT_BY.len() - planted.len();
            say(&format!("skipped: {count} bugs whose harnesses cannot run here: {unable:?}"));
        }
        say(&format!("{caught} of {} planted bugs caught", planted.len()));
        assert!(missed.is_empty(), "not caught:\n{}", missed.join("\n"));
    }
}
