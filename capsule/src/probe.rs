//! What runs in a session: `/proc` in, `Probe` out. One walk over all processes serves every session that is asked for.
//! Absent: signals to anybody, and files of a process that only its owner may read, so that it works across users.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;

use rustix::process::{Pid, test_kill_process};

use crate::agent::Probe;
use crate::launch::AGENTS;

/// More are not looked at; the sessions' own first processes always are.
const MAX_PROCESSES: usize = 8192;
/// Of a foreground group; an agent is its leader or near it.
const MAX_NAMED: usize = 16;
const TRUSTED: u8 = 32;
/// Of a command line no more is read.
const MAX_COMMAND: u64 = 4096;
const SHELLS: [&str; 10] = ["sh", "bash", "zsh", "fish", "dash", "ash", "ksh", "tcsh", "busybox", "nu"];

pub struct Prober {
    proc: PathBuf,
    /// By the first process: when it started, and what its tree had used by then.
    before: BTreeMap<i32, (u64, u64)>,
    /// By process: when it started, its name then, and the agent it is. A program that replaces another changes its name.
    agents: BTreeMap<i32, (u64, String, Option<&'static str>)>,
    /// The session of every process that has been read. Those of sessions that are not asked for are not read again.
    known: BTreeMap<i32, Option<i32>>,
    /// Until all are read again, because numbers are used again.
    trusted: u8,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Process {
    pid: i32,
    name: String,
    zombie: bool,
    parent: i32,
    group: i32,
    session: i32,
    /// Of its terminal; none without one.
    foreground: Option<i32>,
    /// With its children that ended and were waited for, so that the sum of a tree only grows.
    ticks: u64,
    started: u64,
}

impl Default for Prober {
    fn default() -> Self {
        Self { proc: PathBuf::from("/proc"), before: BTreeMap::new(), agents: BTreeMap::new(), known: BTreeMap::new(), trusted: 0 }
    }
}

impl Prober {
    /// One answer for each first process of a session; `None` when nothing can be known.
    pub fn probe(&mut self, firsts: &[i32]) -> Vec<Option<Probe>> {
        let pids = self.pids(firsts);
        // The processes of a new session may have been read as nobody's.
        if self.trusted == 0 || firsts.iter().any(|first| !self.before.contains_key(first)) {
            self.known.clear();
            self.trusted = TRUSTED;
        }
        self.trusted -= 1;
        let is_asked_for = |pid: &i32| match self.known.get(pid) {
            None => true,
            Some(owner) => owner.is_some_and(|owner| firsts.contains(&owner)),
        };
        let mut buffer = [0; 1024];
        let read: Vec<Process> = pids.iter().filter(|pid| is_asked_for(pid)).filter_map(|pid| self.read(*pid, &mut buffer)).collect();
        let all: Vec<i32> = firsts.iter().chain(self.before.keys()).copied().collect();
        let owners = owners(&read, &all, &self.known);
        let probes = firsts.iter().map(|first| self.session(*first, &read, &owners)).collect();
        self.known.extend(read.iter().map(|process| process.pid).zip(owners));
        let is_there = |pid: &i32| pids.binary_search(pid).is_ok();
        self.known.retain(|pid, _| is_there(pid));
        self.before.retain(|pid, _| is_there(pid));
        self.agents.retain(|pid, _| is_there(pid));
        probes
    }

    fn pids(&self, firsts: &[i32]) -> Vec<i32> {
        let numbers = fs::read_dir(&self.proc).into_iter().flatten().flatten();
        let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).take(MAX_PROCESSES);
        let mut pids: Vec<i32> = numbers.chain(firsts.iter().copied()).collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// One that has ended meanwhile is none.
    fn read(&self, pid: i32, buffer: &mut [u8]) -> Option<Process> {
        let length = File::open(self.proc.join(format!("{pid}/stat"))).ok()?.read(buffer).ok()?;
        parse(&buffer[..length])
    }

    fn session(&mut self, first: i32, processes: &[Process], owners: &[Option<i32>]) -> Option<Probe> {
        let Some(process) = find(processes, first).filter(|process| !process.zombie) else {
            // It may as well be hidden from us.
            let ended = find(processes, first).is_some() || Pid::from_raw(first).is_none_or(is_gone);
            return ended.then(Probe::default);
        };
        let tree = processes.iter().zip(owners).filter(|(_, owner)| **owner == Some(first)).map(|(process, _)| process);
        let (mut descendants, mut ticks) = (0, 0);
        for member in tree {
            descendants += u32::from(member.pid != first && !member.zombie);
            ticks = u64::saturating_add(ticks, member.ticks);
        }
        let before = self.before.insert(first, (process.started, ticks));
        let before = before.filter(|(started, _)| *started == process.started).map(|(_, ticks)| ticks);
        let group: Vec<_> = processes.iter().filter(|member| Some(member.group) == process.foreground && !member.zombie).collect();
        let leader = group.iter().find(|member| member.pid == member.group).or(group.first());
        // An agent may run another as its tool, in its own group.
        let agent = leader.into_iter().chain(group.iter().take(MAX_NAMED)).find_map(|member| self.agent(member));
        let first_in_front = process.foreground == Some(process.group);
        Some(Probe {
            alive: true,
            foreground_pgid: process.foreground,
            program: leader.map(|leader| leader.name.clone()),
            agent: agent.map(str::to_owned),
            first_in_front,
            shell_in_front: first_in_front && agent.is_none() && SHELLS.contains(&process.name.trim_start_matches('-')),
            descendants,
            cpu_ticks: before.map(|before| ticks.saturating_sub(before)),
        })
    }

    fn agent(&mut self, process: &Process) -> Option<&'static str> {
        if let Some((started, name, agent)) = self.agents.get(&process.pid)
            && (*started, name) == (process.started, &process.name)
        {
            return *agent;
        }
        let mut command = Vec::new();
        if let Ok(file) = File::open(self.proc.join(format!("{}/cmdline", process.pid))) {
            // What could be read will do.
            let _ = file.take(MAX_COMMAND).read_to_end(&mut command);
        }
        let agent = agent_of(&process.name, &command);
        self.agents.insert(process.pid, (process.started, process.name.clone(), agent));
        agent
    }
}

fn is_gone(pid: Pid) -> bool {
    test_kill_process(pid) == Err(rustix::io::Errno::SRCH)
}

fn find(processes: &[Process], pid: i32) -> Option<&Process> {
    processes.binary_search_by_key(&pid, |process| process.pid).ok().map(|index| &processes[index])
}

/// The session of each process: by its terminal's session, or because an ancestor belongs to one.
fn owners(processes: &[Process], firsts: &[i32], known: &BTreeMap<i32, Option<i32>>) -> Vec<Option<i32>> {
    let own = |process: &Process| [process.pid, process.session].into_iter().find(|pid| firsts.contains(pid));
    // The first process of all has no ancestors that count.
    let told = |process: &Process| own(process).map(Some).or_else(|| (process.parent <= 1).then_some(None));
    let mut owners: Vec<Option<Option<i32>>> = processes.iter().map(told).collect();
    let mut path = Vec::new();
    for start in 0..processes.len() {
        let mut index = start;
        let owner = loop {
            if let Some(owner) = owners[index] {
                break owner;
            }
            // What is reached again before it is known was read while it changed.
            owners[index] = Some(None);
            path.push(index);
            let parent = processes[index].parent;
            match processes.binary_search_by_key(&parent, |process| process.pid) {
                Ok(above) => index = above,
                Err(_) => break known.get(&parent).copied().flatten(),
            }
        };
        for index in path.drain(..) {
            owners[index] = Some(owner);
        }
    }
    owners.into_iter().map(Option::flatten).collect()
}

/// `/proc/<pid>/stat`. The name may contain anything, brackets too.
fn parse(stat: &[u8]) -> Option<Process> {
    let open = stat.iter().position(|byte| *byte == b'(')?;
    let close = stat.iter().rposition(|byte| *byte == b')')?;
    let pid = std::str::from_utf8(&stat[..open]).ok()?.trim().parse().ok()?;
    let name = String::from_utf8_lossy(stat.get(open + 1..close)?).into_owned();
    let rest: Vec<&str> = std::str::from_utf8(&stat[close + 1..]).ok()?.split_ascii_whitespace().collect();
    // Numbered as in proc(5), where the state is the third.
    let field = |number: usize| rest.get(number - 3).copied();
    let number = |index: usize| field(index)?.parse::<i64>().ok();
    let foreground = number(8)? as i32;
    Some(Process {
        pid,
        name,
        zombie: matches!(field(3)?, "Z" | "X"),
        parent: number(4)? as i32,
        group: number(5)? as i32,
        session: number(6)? as i32,
        foreground: (foreground > 0).then_some(foreground),
        ticks: [14, 15, 16, 17].into_iter().map(|index| number(index).unwrap_or(0).max(0) as u64).fold(0, u64::saturating_add),
        started: number(22)?.max(0) as u64,
    })
}

/// By its own name, or by that of the script that an interpreter runs.
fn agent_of(name: &str, command: &[u8]) -> Option<&'static str> {
    const INTERPRETERS: [&str; 9] = ["node", "bun", "deno", "python", "MainThread", "sh", "bash", "dash", "zsh"];
    const PACKAGES: [(&str, &str); 6] = [
        ("/claude-code/", "claude"),
        ("/@openai/codex/", "codex"),
        ("/@sourcegraph/amp/", "amp"),
        ("/kimi-cli/", "kimi"),
        ("/opencode-ai/", "opencode"),
        ("/.grok/bin/", "grok"),
    ];
    let words: Vec<_> = command.split(|byte| *byte == 0).take(8).map(String::from_utf8_lossy).collect();
    let slug = |name: &str| {
        let name = name.rsplit('/').next().unwrap_or(name);
        let name = name.strip_suffix("-code").or(name.strip_suffix("-cli")).unwrap_or(name);
        AGENTS.into_iter().map(|agent| agent.slug).find(|slug| *slug == name)
    };
    let program = words.first().map_or("", |word| word.as_ref());
    let interpreted = INTERPRETERS.iter().any(|interpreter| name.starts_with(interpreter));
    // Its first word that is no option.
    let script = words.iter().skip(1).find(|word| !word.starts_with('-')).filter(|_| interpreted);
    let package = |path: &str| PACKAGES.iter().find(|(part, _)| path.contains(part)).map(|(_, slug)| *slug);
    slug(name)
        .or_else(|| slug(program))
        .or_else(|| package(program))
        .or_else(|| script.and_then(|script| slug(script).or_else(|| package(script))))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};

    use portable_pty::{CommandBuilder, PtySize, native_pty_system};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_of_proc() {
        let stat = b"42 (a) b (c) S 7 41 40 34816 39 4194560 1 2 3 4 10 20 30 40 20 0 1 0 5555 1 2 3\n";
        let expected = Process {
            pid: 42,
            name: "a) b (c".into(),
            zombie: false,
            parent: 7,
            group: 41,
            session: 40,
            foreground: Some(39),
            ticks: 100,
            started: 5555,
        };
        assert_eq!(parse(stat), Some(expected));
        assert_eq!(parse(b"42 (a) S 7"), None);
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn agents_by_name_and_by_script() {
        let agent = |name: &str, command: &str| agent_of(name, command.replace(' ', "\0").as_bytes());
        assert_eq!(agent("claude", "claude --verbose"), Some("claude"));
        assert_eq!(agent("node", "node --no-warnings /usr/lib/node_modules/@anthropic-ai/claude-code/cli.js"), Some("claude"));
        assert_eq!(agent("node-MainThread", "node /home/agent/.local/bin/amp"), Some("amp"));
        assert_eq!(agent("python3.12", "/usr/bin/python3.12 /home/agent/.local/bin/kimi-cli"), Some("kimi"));
        assert_eq!(agent("agent", "/home/agent/.grok/bin/agent"), Some("grok"));
        assert_eq!(agent("bash", "bash /home/agent/.local/bin/claude --verbose"), Some("claude"));
        assert_eq!(agent("bash", "bash /home/agent/notes-on-claude"), None);
        assert_eq!(agent("opencode", ""), Some("opencode"));
        for (name, command) in
            [("vim", "vim claude"), ("zsh", "-zsh"), ("agent", "agent"), ("grep", "grep codex"), ("node", "node x.js claude")]
        {
            assert_eq!(agent(name, command), None, "{command}");
        }
    }

    fn process(pid: i32, parent: i32, session: i32) -> Process {
        Process { pid, name: String::new(), zombie: false, parent, group: pid, session, foreground: None, ticks: 0, started: 0 }
    }

    #[test]
    fn whose_process_is_it() {
        let processes = [
            process(1, 0, 1),
            process(10, 1, 10),
            process(11, 10, 10),
            process(12, 11, 12), // with a session of its own
            process(13, 1, 10),  // its parent has ended
            process(20, 1, 20),
            process(21, 20, 20),
            process(30, 1, 30),
            process(40, 41, 40), // a circle
            process(41, 40, 41),
            process(50, 49, 50), // a parent that nobody has seen
        ];
        let owner =
            |pid: i32| owners(&processes, &[10, 20], &BTreeMap::new())[processes.iter().position(|process| process.pid == pid).unwrap()];
        for (pid, expected) in [
            (1, None),
            (10, Some(10)),
            (11, Some(10)),
            (12, Some(10)),
            (13, Some(10)),
            (20, Some(20)),
            (21, Some(20)),
            (30, None),
            (40, None),
            (41, None),
            (50, None),
        ] {
            assert_eq!(owner(pid), expected, "{pid}");
        }
    }

    #[test]
    fn a_parent_that_was_not_read_again_is_known() {
        let known = BTreeMap::from([(11, Some(10)), (31, None)]);
        let processes = [process(10, 1, 10), process(15, 11, 15), process(32, 31, 32)];
        assert_eq!(owners(&processes, &[10], &known), [Some(10), Some(10), None]);
    }

    #[test]
    fn a_process_that_is_gone_is_no_error() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id() as i32;
        child.wait().unwrap();
        assert_eq!(Prober::default().probe(&[pid]), [Some(Probe::default())]);
        assert_eq!(Prober::default().probe(&[]), []);
    }

    struct Terminal {
        pid: i32,
        writer: Box<dyn Write + Send>,
        reader: BufReader<Box<dyn std::io::Read + Send>>,
        child: Box<dyn portable_pty::Child + Send + Sync>,
    }

    impl Terminal {
        fn open(program: &str, args: &[&str]) -> Self {
            let pair = native_pty_system().openpty(PtySize::default()).unwrap();
            let mut command = CommandBuilder::new(program);
            command.args(args);
            command.env("PS1", "");
            let child = pair.slave.spawn_command(command).unwrap();
            let pid = child.process_id().unwrap() as i32;
            let (writer, reader) = (pair.master.take_writer().unwrap(), pair.master.try_clone_reader().unwrap());
            Self { pid, writer, reader: BufReader::new(reader), child }
        }

        /// Types a command and waits for a line of its output.
        fn run(&mut self, command: &str, until: &str) {
            writeln!(self.writer, "{command}").unwrap();
            let mut line = String::new();
            while !line.trim_end().ends_with(until) || line.contains("echo") {
                line.clear();
                assert!(self.reader.read_line(&mut line).unwrap() > 0, "{command} ended without {until}");
            }
        }
    }

    impl Drop for Terminal {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    #[test]
    fn a_shell_and_what_it_runs() {
        let mut terminal = Terminal::open("bash", &["--norc", "--noprofile", "-i"]);
        terminal.run("stty -echo; echo rea''dy", "ready");
        let (mut prober, pid) = (Prober::default(), terminal.pid);
        let mut probe = || prober.probe(&[pid])[0].clone().unwrap();
        let at_rest = probe();
        assert!(at_rest.alive && at_rest.shell_in_front && at_rest.first_in_front, "{at_rest:?}");
        assert_eq!((at_rest.program.as_deref(), at_rest.descendants, at_rest.cpu_ticks), (Some("bash"), 0, None));
        assert_eq!(at_rest.foreground_pgid, Some(terminal.pid));

        terminal.run("sh -c 'sleep 100 & echo started; read x'", "started");
        let running = probe();
        assert!(running.alive && !running.shell_in_front && !running.first_in_front, "{running:?}");
        assert_eq!((running.program.as_deref(), running.descendants), (Some("sh"), 2));
        assert_ne!(running.foreground_pgid, at_rest.foreground_pgid);
        assert!(running.cpu_ticks.is_some());

        terminal.run("", "");
        terminal.run("i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done; echo coun''ted", "counted");
        let after = probe();
        assert!(after.shell_in_front, "{after:?}");
        assert!(after.cpu_ticks.unwrap() > 0, "{after:?}");
    }

    #[test]
    fn an_agent_in_a_shell_by_its_script() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("codex");
        fs::write(&script, "#!/bin/sh\necho I am here\nread x\n").unwrap();
        let mut terminal = Terminal::open("bash", &["--norc", "--noprofile", "-i"]);
        terminal.run("stty -echo; echo rea''dy", "ready");
        terminal.run(&format!("sh {}", script.display()), "here");
        let probe = Prober::default().probe(&[terminal.pid])[0].clone().unwrap();
        assert_eq!((probe.agent.as_deref(), probe.shell_in_front), (Some("codex"), false), "{probe:?}");
    }

    /// The price, printed rather than asserted: `cargo test --release -p jackin-capsule probe -- --nocapture`.
    #[test]
    fn fifty_sessions_at_once() {
        let terminals: Vec<_> = (0..50).map(|_| Terminal::open("sleep", &["100"])).collect();
        let firsts: Vec<_> = terminals.iter().map(|terminal| terminal.pid).collect();
        let mut prober = Prober::default();
        assert!(prober.probe(&firsts).iter().flatten().filter(|probe| probe.alive).count() == 50);
        let started = std::time::Instant::now();
        for _ in 0..20 {
            assert_eq!(prober.probe(&firsts).iter().flatten().filter(|probe| probe.first_in_front).count(), 50);
        }
        println!("50 sessions are probed in {} us", started.elapsed().as_micros() / 20);
        let started = std::time::Instant::now();
        for first in &firsts[..20] {
            assert!(prober.probe(&[*first])[0].as_ref().is_some_and(|probe| probe.first_in_front && probe.cpu_ticks.is_some()));
        }
        println!("one of them is probed in {} us", started.elapsed().as_micros() / 20);
        drop(terminals);
        prober.probe(&[]);
        assert!(prober.before.is_empty() && prober.agents.is_empty(), "what is gone is forgotten");
    }

    proptest! {
        #[test]
        fn any_line_is_a_process_or_none(bytes in any::<Vec<u8>>(), numbers in prop::collection::vec(any::<i64>(), 0..30)) {
            parse(&bytes);
            let numbers: Vec<_> = numbers.iter().map(i64::to_string).collect();
            parse(format!("1 (x) S {}", numbers.join(" ")).as_bytes());
            agent_of("node", &bytes);
        }

        #[test]
        fn every_process_has_at_most_one_owner_whatever_the_parents(parents in prop::collection::vec(0..20_i32, 0..20)) {
            let processes: Vec<_> = parents.iter().enumerate().map(|(index, parent)| process(index as i32 + 1, *parent, 0)).collect();
            for owner in owners(&processes, &[3, 7], &BTreeMap::new()).into_iter().flatten() {
                prop_assert!(owner == 3 || owner == 7);
            }
        }
    }
}
