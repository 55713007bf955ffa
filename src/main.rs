//! Parse, run, print one error, exit with its code.

use clap::Parser;
use pennymill::job::cli::{Cli, Command};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.command {
        Command::Run(args) => pennymill::run::run(args),
        _ => Ok((String::new(), 0)),
    };
    match done {
        Ok((text, code)) => {
            print!("{text}");
            ExitCode::from(code)
        }
        Err(error) => {
            eprintln!("pennymill: {error}");
            ExitCode::from(error.kind.exit_code())
        }
    }
}
