//! Parses arguments, runs one command, turns its outcome into an exit code.

fn main() {
    std::process::exit(jackin::command::main());
}
