//! The clock and randomness: the only places where a run differs from the one before.
//!
//! In: the system's random source and time. Out: hex digits and run ids. Absent: use of either inside plans.

use crate::diagnostic::Diagnostic;
use crate::resource::hex;
use jiff::Timestamp;

/// Seconds since 1970.
pub fn seconds() -> i64 {
    Timestamp::now().as_second()
}

pub fn fill(bytes: &mut [u8]) -> Result<(), Diagnostic> {
    getrandom::fill(bytes).map_err(|error| {
        Diagnostic::error("random.failed", "No random numbers", error.to_string()).help("the system's random source must be available")
    })
}

/// `N` random bytes as 2·`N` hex digits.
pub fn random_hex<const N: usize>() -> Result<String, Diagnostic> {
    let mut bytes = [0; N];
    fill(&mut bytes)?;
    Ok(hex(&bytes))
}

/// 32 hex digits, fresh for every run: `Facts::seed`.
pub fn seed() -> Result<String, Diagnostic> {
    random_hex::<16>()
}

/// Sortable name of a run: `20261120T155544.123Z-1a2b3c4d`. Runs follow each other faster than seconds do.
pub fn run_id() -> Result<String, Diagnostic> {
    Ok(run_id_at(Timestamp::now(), &random_hex::<4>()?))
}

pub fn run_id_at(time: Timestamp, random: &str) -> String {
    format!("{}-{random}", time.strftime("%Y%m%dT%H%M%S.%3fZ"))
}
