//! The capsule beside tmux and a bare pty in one run, as a terminal's user meets them: from outside, through a client.
//!
//! `throughput`, `echo`, `memory` and `attach` as arguments choose parts; names of streams beside `throughput` choose some.
//! Prints figures and ratios, asserts nothing. Candidates take turns, so that a machine that is busy is busy for all.

mod pane;
mod peer;
mod streams;
#[path = "../../../benches/support/mod.rs"]
mod support;
mod terminal;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jackin_capsule::pty::{SESSION_VERB, session_exec};
use pane::{PANE_VERB, Pane, now};
use peer::{Kind, Peer, cpu_seconds, memory, written};
use streams::{Random, STREAMS};
use support::{Wanted, chosen, median, runs, verdict};

const STREAM_MIB: usize = 50;
const KEYS: usize = 2000;
/// Where each takes a tenth of a second, fewer must do.
const ROUND: Duration = Duration::from_secs(15);
const LINES: usize = 10_000;
const IDLE: Duration = Duration::from_secs(5);
/// What an unhurried program writes to its pane, in KiB a second.
const LIMITED: u64 = 2048;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [SESSION_VERB, cwd, ..] => {
            let error = session_exec(cwd, &args[2..]);
            panic!("{:?}: {error}", &args[2..]);
        }
        [PANE_VERB, socket] => return pane::run(socket),
        _ => {}
    }
    if chosen("throughput") {
        throughput();
    }
    if chosen("echo") {
        echo();
    }
    if chosen("memory") {
        memory_and_rest();
    }
    if chosen("attach") {
        attach();
    }
}

// ---- throughput ----

/// Medians of one candidate and one stream: megabytes a second, seconds on a processor, bytes out per byte in.
struct Flow {
    rate: f64,
    cpu: f64,
    out: f64,
}

fn throughput() {
    let named: Vec<String> = std::env::args().collect();
    let mut streams: Vec<&str> = STREAMS.iter().map(|(name, _)| *name).filter(|name| named.iter().any(|n| n == name)).collect();
    if streams.is_empty() {
        streams = STREAMS.iter().map(|(name, _)| *name).collect();
    }
    let mut samples: BTreeMap<(&str, Kind), [Vec<f64>; 3]> = BTreeMap::new();
    for _ in 0..runs(3) {
        for name in streams.iter().copied() {
            for kind in [Kind::Bare, Kind::Tmux, Kind::Capsule] {
                let flow = play(name, kind);
                let of_kind = samples.entry((name, kind)).or_default();
                for (samples, figure) in of_kind.iter_mut().zip([flow.rate, flow.cpu, flow.out]) {
                    samples.push(figure);
                }
            }
        }
    }
    println!("\nThroughput: MB/s from the program's first byte until its last is on the client's screen");
    println!("(s: on a processor, servers and client, for {STREAM_MIB} MiB; out: bytes to the screen per byte of the program)");
    println!(
        "  {:<14} {:>8} | {:>8} {:>6} {:>6} | {:>8} {:>6} {:>6} | {:>7} {:>7}",
        "", "bare", "tmux", "s", "out", "capsule", "s", "out", "rate", "s"
    );
    let (mut rates, mut costs) = (Vec::new(), Vec::new());
    for name in streams {
        let [bare, tmux, own] = [Kind::Bare, Kind::Tmux, Kind::Capsule].map(|kind| {
            let [rate, cpu, out] = &samples[&(name, kind)];
            Flow { rate: median(rate), cpu: median(cpu), out: median(out) }
        });
        let (rate, cost) = (own.rate / tmux.rate, own.cpu / tmux.cpu);
        println!(
            "  {name:<14} {:>8.1} | {:>8.1} {:>6.2} {:>5.0}% | {:>8.1} {:>6.2} {:>5.0}% | {rate:>6.2}x {cost:>6.2}x",
            bare.rate,
            tmux.rate,
            tmux.cpu,
            tmux.out * 100.0,
            own.rate,
            own.cpu,
            own.out * 100.0
        );
        rates.push((rate, name));
        costs.push(cost);
        if name == "ascii" {
            verdict("plain text, of what the bare pty gives", own.rate / bare.rate * 100.0, "%", 83.0, Wanted::AtLeast);
        }
    }
    let count = rates.len() as f64;
    let mean = |ratios: &mut dyn Iterator<Item = f64>| (ratios.map(f64::ln).sum::<f64>() / count).exp();
    let (slowest, name) = rates.iter().copied().min_by(|a, b| a.0.total_cmp(&b.0)).expect("there are streams");
    verdict(&format!("of tmux's rate at worst ({name})"), slowest, "x", 1.0, Wanted::AtLeast);
    verdict("of tmux's rate, geometric mean", mean(&mut rates.iter().map(|(rate, _)| *rate)), "x", 2.0, Wanted::AtLeast);
    verdict("of tmux's time on a processor, geometric mean", mean(&mut costs.into_iter()), "x", 0.5, Wanted::AtMost);
}

fn play(stream: &str, kind: Kind) -> Flow {
    let peer = Peer::start(kind);
    let (mut terminal, mut pane) = peer.up();
    let mut processes = peer.servers();
    // In a bare terminal the program is all there is.
    processes.extend((kind != Kind::Bare).then_some(terminal.pid));
    let (cpu, bytes) = (cpu_seconds(&processes), terminal.bytes);
    pane.order(&format!("play {stream} {STREAM_MIB}"));
    terminal.show_until_mark();
    let shown = now();
    let took = (shown - pane.answer()) as f64 / 1e9;
    let megabytes = (STREAM_MIB << 20) as f64 / 1e6;
    let out = (terminal.bytes - bytes) as f64 / 1e6 / megabytes;
    Flow { rate: megabytes / took, cpu: cpu_seconds(&processes) - cpu, out }
}

// ---- echo ----

/// What happens in the pane beside the one that is typed into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nothing,
    Flood { kib_per_second: u64 },
}

fn echo() {
    println!("\nEcho: microseconds from a key to its character on the client's screen, up to {KEYS} keys");
    println!(
        "  {:<22} | {:>8} {:>8} {:>7} | {:>8} {:>8} {:>7} | {:>7} {:>7}",
        "", "tmux p50", "p99", "MB/s", "own p50", "p99", "MB/s", "p50", "p99"
    );
    for (what, beside) in [
        ("idle", Beside::Nothing),
        ("beside 2 MiB/s", Beside::Flood { kib_per_second: LIMITED }),
        ("beside all it can", Beside::Flood { kib_per_second: 0 }),
    ] {
        let mut samples = [Vec::new(), Vec::new()];
        let mut rates = [Vec::new(), Vec::new()];
        let rounds = runs(3);
        for _ in 0..rounds {
            for (index, kind) in [Kind::Tmux, Kind::Capsule].into_iter().enumerate() {
                rates[index].push(type_keys(kind, beside, KEYS / rounds, &mut samples[index]));
            }
        }
        let [tmux, own] = samples.map(|mut samples| {
            samples.sort_by(f64::total_cmp);
            (samples[samples.len() / 2], samples[samples.len() * 99 / 100])
        });
        let [tmux_rate, own_rate] = rates.map(|rates| median(&rates));
        println!(
            "  {what:<22} | {:>8.0} {:>8.0} {tmux_rate:>7.1} | {:>8.0} {:>8.0} {own_rate:>7.1} | {:>6.2}x {:>6.2}x",
            tmux.0,
            tmux.1,
            own.0,
            own.1,
            own.0 / tmux.0,
            own.1 / tmux.1
        );
        match beside {
            Beside::Nothing => {
                verdict("idle, p50", own.0, " us", tmux.0.round(), Wanted::AtMost);
            }
            Beside::Flood { kib_per_second: 0 } => {
                verdict("beside an unlimited flood, p50", own.0, " us", 1000.0, Wanted::AtMost);
                verdict("beside an unlimited flood, p99", own.1, " us", 2000.0, Wanted::AtMost);
            }
            Beside::Flood { .. } => {}
        }
    }
}

/// Adds microseconds; says how fast the flood was, in MB/s.
fn type_keys(kind: Kind, beside: Beside, count: usize, samples: &mut Vec<f64>) -> f64 {
    // None of them stands in what else is on the screen.
    const LETTERS: &[u8] = b"QZXJKVWYHGU";
    let peer = Peer::start(kind);
    let (mut terminal, mut pane) = peer.up();
    let mut flooding = None;
    if let Beside::Flood { kib_per_second } = beside {
        let typed_into = peer.split(&mut terminal);
        let mut floods = std::mem::replace(&mut pane, typed_into);
        floods.obey(&format!("flood {kib_per_second}"), &mut terminal);
        flooding = Some(floods);
    }
    pane.obey("echo", &mut terminal);
    terminal.show_for(Duration::from_millis(500));
    let flooded = |pane: &Option<Pane>| pane.as_ref().map_or(0.0, |pane| written(pane.pid));
    let (started, before) = (Instant::now(), flooded(&flooding));
    let (mut random, mut plain) = (Random(12345), Plain::Text);
    for key in 0..count {
        if started.elapsed() > ROUND {
            break;
        }
        if key % 39 == 38 {
            terminal.send(b"\r");
        }
        // As irregular as people, if faster, so that nothing falls into step with frames.
        let think = Instant::now() + Duration::from_micros(200 + random.below(4000));
        while let Some(left) = think.checked_duration_since(Instant::now()) {
            let shown = terminal.read(left).unwrap_or_default();
            plain.shows(0, shown);
        }
        let letter = LETTERS[key % LETTERS.len()];
        let typed = Instant::now();
        terminal.send(&[letter]);
        while !terminal.read(Duration::from_secs(1)).is_some_and(|shown| plain.shows(letter, shown)) {
            assert!(typed.elapsed() < Duration::from_secs(10), "no echo of {}", char::from(letter));
        }
        samples.push(typed.elapsed().as_secs_f64() * 1e6);
    }
    (flooded(&flooding) - before) / started.elapsed().as_secs_f64()
}

/// Where in a client's output we are: a letter counts only outside of sequences.
enum Plain {
    Text,
    Escape,
    Control,
    String,
    Skip,
}

impl Plain {
    fn shows(&mut self, letter: u8, bytes: &[u8]) -> bool {
        let mut found = false;
        for byte in bytes {
            *self = match (&self, byte) {
                (Plain::Text, 0x1b) | (Plain::String, 0x1b) => Plain::Escape,
                (Plain::Text, byte) => {
                    found |= *byte == letter;
                    Plain::Text
                }
                (Plain::Escape, b'[') => Plain::Control,
                (Plain::Escape, b']' | b'P' | b'_' | b'^') => Plain::String,
                (Plain::Escape, b'(' | b')' | b'#' | b'%') => Plain::Skip,
                (Plain::Control, 0x40..=0x7e) | (Plain::String, 7) | (Plain::Escape | Plain::Skip, _) => Plain::Text,
                (Plain::Control, _) => Plain::Control,
                (Plain::String, _) => Plain::String,
            };
        }
        found
    }
}

// ---- memory, and doing nothing ----

fn memory_and_rest() {
    println!("\nMemory in MiB of what serves (tmux: server; capsule: init and mux; a client is attached), sessions of {LINES} lines");
    println!(
        "(files: memory outside of any process, that keeps sessions through a crash; cpu: of the empty ones, attached, in {} s)",
        IDLE.as_secs()
    );
    println!(
        "  {:<10} {:>8} | {:>8} {:>8} {:>8} {:>9} | {:>8} {:>8} {:>8} | {:>9}",
        "", "sessions", "RSS", "PSS", "files", "cpu ms", "RSS full", "PSS", "files", "a session"
    );
    let mut figures = BTreeMap::new();
    for sessions in [1, 10, 50] {
        for (name, kind) in [("tmux", Kind::Tmux), ("capsule", Kind::Capsule)] {
            let peer = Peer::start(kind);
            let (mut terminal, first) = peer.up();
            let mut panes = vec![first];
            while panes.len() < sessions {
                panes.push(peer.add_pane(panes.len(), &mut terminal));
            }
            // What looks at a screen that has just changed should have done so.
            terminal.show_for(Duration::from_secs(3));
            let servers = peer.servers();
            let empty = memory(&servers);
            let everybody = [&servers[..], &[terminal.pid]].concat();
            let cpu = cpu_seconds(&everybody);
            terminal.show_for(IDLE);
            let cpu = (cpu_seconds(&everybody) - cpu) * 1e3;
            for pane in &mut panes {
                pane.obey(&format!("fill {LINES}"), &mut terminal);
            }
            terminal.show_for(Duration::from_secs(2));
            let full = memory(&servers);
            let each = (full.pss + full.files - empty.pss - empty.files) / sessions as f64;
            println!(
                "  {name:<10} {sessions:>8} | {:>8.1} {:>8.1} {:>8.1} {cpu:>9.1} | {:>8.1} {:>8.1} {:>8.1} | {each:>9.2}",
                empty.rss, empty.pss, empty.files, full.rss, full.pss, full.files
            );
            figures.insert((kind, sessions), (empty.pss + empty.files, each, cpu));
        }
    }
    let (empty, ..) = figures[&(Kind::Capsule, 1)];
    let (_, each, cpu) = figures[&(Kind::Capsule, 50)];
    let ((tmux_empty, ..), (_, tmux_each, _)) = (figures[&(Kind::Tmux, 1)], figures[&(Kind::Tmux, 50)]);
    println!("  -> of tmux's: {:.2}x empty, {:.2}x a session", empty / tmux_empty, each / tmux_each);
    verdict("empty, PSS and files", empty, " MiB", 3.0, Wanted::AtMost);
    verdict("a session, PSS and files", each, " MiB", 1.3, Wanted::AtMost);
    verdict("50 idle panes", cpu / IDLE.as_millis() as f64 * 100.0, "% of a processor", 0.05, Wanted::AtMost);
}

// ---- attaching ----

fn attach() {
    println!("\nAttach: milliseconds from starting the client to the last row of its first frame, over a session of {LINES} lines");
    let peers = [Kind::Tmux, Kind::Capsule].map(|kind| {
        let peer = Peer::start(kind);
        let (mut terminal, mut pane) = peer.up();
        pane.obey(&format!("fill {LINES}"), &mut terminal);
        pane.obey("mark", &mut terminal);
        terminal.settle(Duration::from_millis(300));
        (peer, pane)
    });
    let mut samples = [Vec::new(), Vec::new()];
    for _ in 0..runs(20) {
        for ((peer, _), samples) in peers.iter().zip(&mut samples) {
            let started = Instant::now();
            let mut terminal = peer.attach();
            terminal.show_until_mark();
            samples.push(started.elapsed().as_secs_f64() * 1e3);
            terminal.settle(Duration::from_millis(100));
        }
    }
    let [tmux, own] = samples.map(|samples| (median(&samples), samples.iter().copied().fold(f64::INFINITY, f64::min)));
    println!("  {:<10} {:>8} {:>8}", "", "median", "fastest");
    println!("  {:<10} {:>8.1} {:>8.1}", "tmux", tmux.0, tmux.1);
    println!("  {:<10} {:>8.1} {:>8.1}   {:.2}x", "capsule", own.0, own.1, own.0 / tmux.0);
    verdict("attach", own.0, " ms", 5.0, Wanted::AtMost);
}
