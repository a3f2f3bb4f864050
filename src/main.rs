//! Parse, set up tracing, run, exit.

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use lifeboat::cli;
use lifeboat::cli::args::Cli;

fn main() -> ExitCode {
    let parsed = match Cli::try_parse() {
        Ok(parsed) => parsed,
        Err(error) => {
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                    // Nobody is left to be told that the terminal is closed.
                    let _ = error.print();
                    ExitCode::SUCCESS
                }
                ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                    let _ = error.print();
                    ExitCode::from(2)
                }
                _ => {
                    cli::print_usage_error(&error.to_string());
                    ExitCode::from(2)
                }
            };
        }
    };
    cli::set_up_tracing(&parsed);
    ExitCode::from(cli::run(parsed))
}
