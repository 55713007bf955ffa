//! Parse, run, print one error, exit with its code.

use clap::Parser;
use pennymill::error::{Error, Kind, Result, printable, talk};
use pennymill::generate::{Compression, Options, generate};
use pennymill::guard::{self, Heap};
use pennymill::job::cli::{Cli, Command, CompressForm, GenerateArgs};
use pennymill::{audit, check, deliver, explain, gc, history, query, run, schema, score, store};
use std::io::Write;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: Heap = Heap;

fn main() -> ExitCode {
    guard::allow_to_end();
    std::panic::set_hook(Box::new(report_panic));
    let cli = Cli::parse();
    let done = std::panic::catch_unwind(|| dispatch(&cli.command));
    match done.unwrap_or_else(|_| Err(Error::invariant("an assertion failed"))) {
        Ok((text, code)) => {
            // A reader that closed its end, such as `head`, has seen what it wanted.
            match std::io::stdout().write_all(text.as_bytes()) {
                Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                    talk(format_args!("pennymill: what was done cannot be told: {error}"));
                    ExitCode::from(Kind::CannotWrite.exit_code())
                }
                _ => ExitCode::from(code),
            }
        }
        Err(error) => {
            talk(format_args!("pennymill: {error}"));
            ExitCode::from(error.kind.exit_code())
        }
    }
}

/// Says where, and not what: the message of an assertion may hold user data.
fn report_panic(panic: &std::panic::PanicHookInfo) {
    if let Some(place) = panic.location() {
        talk(format_args!("pennymill: panic at {}:{}", place.file(), place.line()));
    }
}

/// A page of which every line is what it seems to be, whatever names stand in it.
fn page(text: &str) -> String {
    text.lines().map(|line| printable(line) + "\n").collect()
}

/// What goes to stdout, and the exit code.
fn dispatch(command: &Command) -> Result<(String, u8)> {
    store::set_up();
    match command {
        Command::Run(args) => run::run(args),
        Command::Check(args) => check::run(args).map(|text| (page(&text), 0)),
        Command::Query(args) => query::run(args).map(|code| (String::new(), code)),
        Command::Explain(args) => explain::run(args),
        Command::History(args) => history::run(args).map(|text| (text, 0)),
        Command::Rejects(args) => history::rejects(args).map(|()| (String::new(), 0)),
        Command::Audit(args) => audit::run(args),
        Command::Gc(args) => gc::run(args).map(|(text, code)| (page(&text), code)),
        Command::Score(args) => score::run(args).map(|text| (text, 0)),
        Command::Generate(args) => make(args).map(|text| (text, 0)),
        Command::WebhookSecret { address } => deliver::webhook_secret(address).map(|text| (text, 0)),
        Command::Schema { dataset: None } => {
            Ok((schema::datasets().map(|name| format!("{name}\n")).collect(), 0))
        }
        Command::Schema { dataset: Some(name) } => match schema::contract(name) {
            Some(contract) => Ok((contract.to_string(), 0)),
            None => {
                let names: Vec<&str> = schema::datasets().collect();
                let error = Error::unfit(format!("there is no dataset `{name}`"));
                Err(error.advise(format!("the datasets are: {}", names.join(", "))))
            }
        },
    }
}

fn make(args: &GenerateArgs) -> Result<String> {
    let options = Options {
        rows: args.rows,
        users: args.users,
        sellers: args.sellers,
        months: args.months,
        files: args.files,
        seed: args.seed,
        out: args.out.clone(),
        compress: args.compress.map(|form| match form {
            CompressForm::Gz => Compression::Gzip,
            CompressForm::Zst => Compression::Zstd,
        }),
        reject_ratio: args.reject_ratio,
        reference_ratio: args.reference_ratio,
    };
    let made = generate(&options)?;
    let (rows, bytes, files) = (made.rows, made.log_bytes(), made.logs.len());
    Ok(format!("{}: {rows} rows, {bytes} bytes in {files} logs\n", args.out.display()))
}
