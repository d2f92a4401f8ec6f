//! The `ferryfs` command: a thin shell over the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    match ferryfs::run(std::env::args_os()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("ferryfs: {failure}");
            failure.exit_code()
        }
    }
}
