//! Real programs in a pane and, with the same keys, in a terminal of their own: what the operator sees must be the same,
//! cell by cell, also after detaching, after a mux that was killed, in splits and zoomed. Programs with live numbers are
//! compared with what `read` tells of their screen.

mod common;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::terminal::{Terminal, differences};
use common::{BINARY, Capsule, eventually, kill};
use jackin_capsule::frame::Rect;
use jackin_capsule::screen::Size;

const WINDOW: Size = Size { rows: 24, cols: 80 };
const DEADLINE: Duration = Duration::from_secs(30);

/// All of a window but the strip and the bar.
fn inside(window: Size) -> Rect {
    Rect { row: 1, col: 0, rows: window.rows - 2, cols: window.cols }
}

fn installed(program: &str, package: &str) {
    let found = std::env::var("PATH").unwrap().split(':').any(|dir| Path::new(dir).join(program).is_file());
    assert!(found, "{program} is not here: apt-get install {package}, or ./dev test does it");
}

/// A program in a pane of ours, and the same in a terminal of its own.
struct Both {
    capsule: Capsule,
    ours: Terminal,
    plain: Terminal,
    body: Rect,
}

impl Both {
    /// Both wait for a key before they begin, so that sizes are settled. Later sessions of the capsule are idle.
    fn start(script: &str, files: &[(&str, &str)]) -> Self {
        let window = WINDOW;
        let script = format!(
            "stty -echo; echo ready; read -r go; stty echo; printf '\\033[2J\\033[H'; export LANG=C.UTF-8 LC_ALL=C.UTF-8; {script}"
        );
        let body = inside(window);
        let agent = format!("[ \"$JACKIN_SESSION_ID\" = 1 ] || {{ echo a neighbour; exec cat; }}\n{script}");
        let capsule = Capsule::start(&agent);
        for (name, text) in files {
            std::fs::write(capsule.path("work").join(name), text).unwrap();
        }
        let mut ours = Terminal::attach(&capsule, window);
        ours.wait_for("ready");
        eventually("the session has the size of its pane", || (session_size(&capsule)? == (body.rows, body.cols)).then_some(()));
        let mut plain = Terminal::direct(&capsule, &script, Size { rows: body.rows, cols: body.cols });
        plain.wait_for("ready");
        let mut both = Self { capsule, ours, plain, body };
        both.type_keys("\r");
        both
    }

    fn type_keys(&mut self, keys: &str) {
        self.ours.type_keys(keys);
        self.plain.type_keys(keys);
    }

    /// Waits until the plain one shows it and both agree.
    fn agree(&mut self, when: &str, mut shown: impl FnMut(&str) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            self.ours.take();
            self.plain.take();
            let reached = shown(&self.plain.text());
            let different = differences(&self.ours, self.body, &self.plain);
            if reached && different.is_none() {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{when}: {}\n--- the operator sees\n{}\n--- the program alone\n{}",
                if reached { different.unwrap_or_default() } else { "it never came".to_owned() },
                self.ours.text(),
                self.plain.text()
            );
            if !self.plain.take_soon(Duration::from_millis(2)) {
                self.ours.take_soon(Duration::from_millis(10));
            }
        }
    }

    /// Both must have answered, and come to the same.
    fn step(&mut self, keys: &str, shown: &str) {
        self.step_until(keys, |text| text.contains(shown));
    }

    /// Both have taken the size: the program's last but one row is where it belongs.
    fn settle(&mut self, status: &str) {
        let Rect { row, col, rows, cols } = self.body;
        self.plain.wait_until("the new size", |plain| plain.row(rows - 2).contains(status));
        self.ours.wait_until("the new size", |ours| {
            ours.screen().rows(col, cols).nth((row + rows - 2).into()).is_some_and(|text| text.contains(status))
        });
    }

    /// For keys that take something away.
    fn step_until(&mut self, keys: &str, shown: impl FnMut(&str) -> bool) {
        let (ours, plain) = (self.ours.raw.len(), self.plain.raw.len());
        self.type_keys(keys);
        self.ours.wait_until("an answer to the keys", |terminal| terminal.raw.len() > ours);
        self.plain.wait_until("an answer to the keys", |terminal| terminal.raw.len() > plain);
        self.agree(&format!("after {keys:?}"), shown);
    }

    fn attach_anew(&mut self) {
        self.ours.type_keys("\x1cd");
        assert_eq!(self.ours.wait_for_exit(), 0);
        self.ours = Terminal::attach(&self.capsule, self.ours.size());
        self.agree("attached anew", |_| true);
    }

    /// The client finds the next mux by itself.
    fn kill_the_mux(&mut self) {
        let before = self.ours.raw.len();
        let mux = self.capsule.mux_pid();
        kill("KILL", mux);
        self.ours.wait_for_raw(before, "\x1b[2J");
        assert_ne!(self.capsule.mux_pid(), mux);
        self.agree("after the mux was killed", |_| true);
    }

    fn resize(&mut self, window: Size, shown: impl FnMut(&str) -> bool) {
        self.body = inside(window);
        self.ours.resize(window);
        self.plain.resize(Size { rows: self.body.rows, cols: self.body.cols });
        self.agree(&format!("resized to {window:?}"), shown);
    }

    /// The first agent of the picker becomes the neighbour, then the focus goes back to the program, which is left of
    /// it or above.
    fn split(&mut self, key: char, back: &str) {
        self.ours.type_keys(&format!("\x1c{key}"));
        self.ours.wait_for("Codex");
        self.ours.type_keys("\r");
        self.ours.wait_for("a neighbour");
        self.ours.type_keys(&format!("\x1c{back}"));
        let (window, (row, col)) = (self.ours.size(), self.ours.find("a neighbour").unwrap());
        // Strip, title of the pane; its neighbour's title above, or a divider before, what the neighbour says; the bar.
        let rows = if col > 0 { window.rows - 3 } else { row - 3 };
        let cols = if col > 0 { col - 1 } else { window.cols };
        self.body = Rect { row: 2, col: 0, rows, cols };
        self.plain.resize(Size { rows, cols });
    }

    /// The neighbour goes: it reads the end of its input.
    fn close_neighbour(&mut self, there: &str) {
        self.ours.type_keys(there);
        self.ours.wait_for("a neighbour");
        self.ours.type_keys("\x04");
        self.ours.wait_until("the neighbour has gone", |ours| !ours.text().contains("a neighbour"));
        let window = self.ours.size();
        self.body = inside(window);
        self.plain.resize(Size { rows: self.body.rows, cols: self.body.cols });
    }

    fn ends(&mut self, keys: &str) {
        self.type_keys(keys);
        self.plain.wait_for_exit();
        self.ours.wait_for_exit();
        assert_eq!(self.capsule.wait().code(), Some(0));
    }
}

fn read(capsule: &Capsule) -> String {
    let output = Command::new(BINARY).args(["read", "1"]).env("JACKIN_RUN_DIR", capsule.path("run")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Rows and columns as the kernel has them for the first session.
fn session_size(capsule: &Capsule) -> Option<(u16, u16)> {
    let reply: serde_json::Value = serde_json::from_str(&capsule.ask_raw(r#"{"type":"session_read","session_id":1}"#)).ok()?;
    Some((reply.get("rows")?.as_u64()? as u16, reply.get("cols")?.as_u64()? as u16))
}

/// Scripts that paint, step by step. After each step something happens to the attachment.
#[test]
fn painted_screens_are_the_same() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/screens_live");
    let mut scripts: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    scripts.retain(|path| path.extension().is_some_and(|extension| extension == "sh"));
    scripts.sort();
    assert!(scripts.len() > 5);
    let failed: Vec<_> = scripts
        .iter()
        .filter(|script| std::panic::catch_unwind(|| paint(script)).inspect_err(|_| eprintln!("failed: {}", script.display())).is_err())
        .collect();
    assert!(failed.is_empty(), "{failed:?}");
}

fn paint(script: &Path) {
    let prelude = "stty -echo; n=0; step() { n=$((n + 1)); printf '<%d>' $n; read -r _; }";
    let mut both = Both::start(&format!("{prelude}; . {}; printf '<end>'; read -r _", script.display()), &[]);
    for step in 1.. {
        both.agree(&format!("step {step}"), |text| text.contains(&format!("<{step}>")) || text.contains("<end>"));
        if both.plain.text().contains("<end>") {
            return both.ends("\r");
        }
        match step % 3 {
            1 => both.attach_anew(),
            2 => both.kill_the_mux(),
            _ => {}
        }
        both.type_keys("\r");
    }
}

const VIMRC: &str =
    "set nocompatible t_RV= t_RB= t_RF= t_u7= background=dark laststatus=2 ruler showcmd number ttyfast nomodeline noswapfile
set incsearch hlsearch showmode
syntax on
";

fn source() -> String {
    let mut text = String::from("// 日本語 comment — café naïve 😀\nfn main() {\n    let wide = \"漢字\";\n");
    for n in 0..200 {
        text += &format!("    println!(\"line {n} {}\", {n} + 0x{n:x}); // note {n} 日本\n", "long ".repeat(n % 30));
    }
    text + "}\n"
}

#[test]
fn vim() {
    installed("vim", "vim");
    let source = source();
    let mut both = Both::start("exec vim -u vimrc -i NONE main.rs", &[("vimrc", VIMRC), ("main.rs", &source)]);
    both.agree("started", |text| text.contains("日本語") && text.contains("1,1"));
    both.step("100G", "100,5");
    both.step("\x06\x06", "%");
    both.step("zt\x05\x05\x19", "%");
    both.step(":vsplit\r", "main.rs");
    both.step_until(":split\r", |text| text.matches("main.rs").count() >= 3);
    both.attach_anew();
    both.step("gg", "日本語");
    both.step("jVjjj", "VISUAL LINE");
    both.kill_the_mux();
    both.step_until("\x1b", |text| !text.contains("VISUAL"));
    both.step("/note 7\r", "/note 7");
    both.step("n", "/note 7");
    both.step(":set termguicolors\r:echo 6*7\r", "42");
    both.step("oneu日本 e\u{301} text", "INSERT");
    both.step_until("\x1b", |text| !text.contains("INSERT"));
    both.resize(Size { rows: 40, cols: 132 }, |text| text.lines().count() == 38 && text.contains("main.rs"));
    both.step(":only\r", "main.rs");
    both.resize(Size { rows: 12, cols: 40 }, |text| text.lines().count() == 10 && text.contains("main.rs"));
    both.kill_the_mux();
    both.resize(WINDOW, |text| text.contains("main.rs"));
    both.step("\x0c:set nowrap\r", "nowrap");
    both.step("50zl", "main.rs");
    both.step("gg0:set list\r", "list");
    both.ends(":qa!\r");
}

#[test]
fn vim_in_splits_and_zoomed() {
    installed("vim", "vim");
    let source = source();
    let mut both = Both::start("exec vim -u vimrc -i NONE main.rs", &[("vimrc", VIMRC), ("main.rs", &source)]);
    both.agree("started", |text| text.contains("日本語"));
    both.split('%', "h");
    both.settle("main.rs");
    // Where vim scrolls to depends on the sizes on the way.
    // One by one: vim paints nothing for a key that the next one undoes.
    both.step("G", "Bot");
    both.step("gg", "Top");
    both.step("20G\x06", "main.rs");
    both.attach_anew();
    both.kill_the_mux();
    both.step(":set termguicolors\rgg", "1,1");
    both.ours.type_keys("\x1cz");
    both.body = inside(WINDOW);
    both.plain.resize(Size { rows: both.body.rows, cols: both.body.cols });
    both.agree("zoomed", |text| text.contains("日本語"));
    both.step("30G", "30,");
    both.kill_the_mux();
    both.attach_anew();
    both.close_neighbour("\x1cz\x1cl");
    both.settle("main.rs");
    both.step("100G:set scrolloff=0\rzt", "100,");
    both.split('"', "k");
    both.settle("main.rs");
    both.step("90Gzt", "90,");
    both.step("\x05\x05:vsplit\r", "main.rs");
    both.attach_anew();
    both.kill_the_mux();
    both.close_neighbour("\x1cj");
    both.settle("main.rs");
    both.step(":only\r80Gzt", "80,");
    both.ends(":qa!\r");
}

#[test]
fn less() {
    installed("less", "less");
    let text: String = (1..=500)
        .map(|n| format!("\x1b[3{}mline {n}\x1b[m 日本 \x1b[1mbold\x1b[m \x1b[4munder\x1b[m {}\n", n % 8, "word ".repeat(n % 40)))
        .collect();
    let mut both = Both::start("LESS= exec less -R text", &[("text", &text)]);
    both.agree("started", |text| text.contains("line 1 "));
    both.step("/line 25\r", "line 25 ");
    both.step("n", "line 250 ");
    both.step("G", "line 500");
    both.attach_anew();
    both.step("g", "line 1 ");
    both.step(" ", ":");
    both.step("jjjj", ":");
    both.kill_the_mux();
    both.resize(Size { rows: 30, cols: 100 }, |text| text.lines().count() == 28 && text.contains("line"));
    both.resize(Size { rows: 10, cols: 30 }, |text| text.lines().count() == 8 && text.contains("line"));
    both.resize(WINDOW, |text| text.contains("line"));
    both.step("g", "line 1 ");
    both.step("-S", "Chop");
    both.step_until("\r", |text| !text.contains("Chop"));
    both.step("\x1b[C", "bold");
    both.step("h", "SUMMARY");
    both.step("q", "line");
    both.ends("q");
}

#[test]
fn zsh() {
    installed("zsh", "zsh");
    let zshrc = "PROMPT='%F{green}zsh%f %B>%b '; RPROMPT='%F{blue}right%f'
zmodload zsh/complist; autoload -Uz compinit; compinit -D -u; zstyle ':completion:*' menu select; zstyle ':completion:*' list-colors 'di=34'
unset HISTFILE; setopt prompt_subst
";
    let mut both =
        Both::start("mkdir -p dir; cd dir; touch alpha.txt alphabet.txt beta.txt 日本.txt; ZDOTDIR=.. exec zsh -i", &[(".zshrc", zshrc)]);
    both.agree("started", |text| text.contains("zsh >") && text.contains("right"));
    both.step("ls --color=always /\r", "etc");
    both.step("cat \t\t", "alphabet.txt");
    both.step("\t", "alphabet.txt");
    both.step("\x1b[C", "beta.txt");
    both.attach_anew();
    both.step_until("\x07", |text| text.contains("zsh >"));
    both.step("\x15echo one 'two\rthree", "quote>");
    both.step("'\r", "one two");
    both.step("for i in 1 2 3; do\recho round $i\rdone\r", "round 3");
    both.kill_the_mux();
    both.step("\x1b[200~echo pas''ted; echo 日''本\nprint second\x1b[201~", "second");
    both.step("\r", "pasted");
    both.step("echo 0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890", "67890");
    both.step("\x01\x1b[C\x1b[C日", "日");
    both.step_until("\x15", |text| !text.contains("0123456789012"));
    both.step("\x12", "bck-i-search");
    both.step("round", "round");
    both.step_until("\x07", |text| !text.contains("bck-i-search"));
    both.step("print -P '%S%F{red}inv%f%s %U%B%F{123}under%f%b%u'\r", "inv under");
    both.step("clear; print cle''ared\r", "cleared");
    both.ends("exit\r");
}

#[test]
fn fzf() {
    installed("fzf", "fzf");
    let lines: String = (1..=1000).map(|n| format!("item {n} 日本 {}\n", ["red", "green", "blue"][n % 3])).collect();
    for options in ["", "--height=40%", "--height=10 --reverse --border", "--multi --preview='echo preview {}' --preview-window=down:3"] {
        let mut both =
            Both::start(&format!("echo before; PS1= FZF_DEFAULT_OPTS= fzf {options} <items; echo chosen; read -r _"), &[("items", &lines)]);
        both.agree(options, |text| text.contains("1000/1000") && text.contains("item 1"));
        both.step("blu", "333/1000");
        both.step("e 99", "99");
        both.attach_anew();
        let (arrow, control) = if options.contains("--reverse") { ("\x1b[B", "\x0e\x0e\x0e") } else { ("\x1b[A", "\x10\x10\x10") };
        both.step(arrow, "99");
        both.kill_the_mux();
        both.step_until("\x15", |text| text.contains("1000/1000"));
        both.step(control, "1000/1000");
        both.step("\r", "chosen");
        both.ends("\r");
    }
}

#[test]
fn tmux_inside() {
    installed("tmux", "tmux");
    let conf = "set -g status-right '' \nset -g status-left 'inner '\nset -g default-terminal screen-256color\nset -s escape-time 0\n\
                set -g automatic-rename off\nset -g allow-rename off\nset -g default-shell /bin/sh\nset -g default-command \"env PS1='$ ' ENV= sh\"\nset -g exit-empty on\n";
    let mut both = Both::start("exec tmux -u -L \"jackin-test-$$\" -f tmux.conf new -n w", &[("tmux.conf", conf)]);
    both.agree("started", |text| text.contains("inner") && text.contains('$'));
    both.step("printf '\\033[1;31mred\\033[m \\033[48;5;22mgreen\\033[m 日本\\n'\r", "red green");
    both.step_until("\x02%", |text| text.contains("│$"));
    both.step("echo right''-side\r", "right-side");
    // The prompt of the new pane, below the two of the one that is cut.
    both.step_until("\x02\"", |text| text.matches("│$").count() == 3);
    both.step("seq 1 50\r", "50");
    both.attach_anew();
    both.step("\x02o", "─");
    both.step("vi''m --version | head -3\r", "VIM");
    both.kill_the_mux();
    both.step("\x02[", "[0/");
    both.step_until("q", |text| !text.contains("[0/"));
    both.step("\x02z", "inner");
    // Keys that come all at once are a paste to tmux.
    both.step("\x02:", ":");
    both.step("neww\r", "1:");
    both.resize(Size { rows: 30, cols: 100 }, |text| text.lines().count() == 28 && text.contains("inner"));
    both.resize(WINDOW, |text| text.contains("inner"));
    both.kill_the_mux();
    both.step("\x02:", ":");
    both.ends("kill-server\r");
}

#[test]
fn script_and_coloured_lists() {
    installed("script", "bsdutils");
    let list = "mkdir -p l/dir l/'日本 dir'; touch l/plain l/run.sh; chmod +x l/run.sh; ln -sf /nowhere l/broken; cd l; exec script -q /dev/null -c \"env ENV= PS1='$ ' sh\"";
    let mut both = Both::start(list, &[]);
    both.agree("started", |text| text.contains('$'));
    both.step("ls -lA --color=always --time-style=+x\r", "broken -> ");
    both.step("ls -x --color=always\r", "日本 dir");
    both.attach_anew();
    both.kill_the_mux();
    both.step("tput setaf 3; tput smul; echo fro''m tput; tput sgr0\r", "from tput");
    both.step("printf 'a\\tb\\tc\\n%80s|\\n' x\r", "a       b");
    both.ends("exit\r");
}

#[test]
fn python_painting() {
    installed("python3", "python3");
    let program = r#"
import sys
def say(text): sys.stdout.write(text); sys.stdout.flush()
say("\x1b[?1049h\x1b[?2026h\x1b[2J")
for row in range(1, 23):
    for col in range(1, 80, 4):
        say(f"\x1b[{row};{col}H\x1b[38;2;{row*10};{col*3};128m\x1b[48;5;{(row*col)%256}m{chr(0x4e00+row*col%200)}x")
say("\x1b[?2026l\x1b[m\x1b[1;1H<1>"); sys.stdin.readline()
for n in range(300):
    say(f"\x1b[?2026h\x1b[5;10r\x1b[10;1H\n\x1b[4mscrolled {n}\x1b[m e\u0301 \x1b]8;;https://x.example/{n}\x1b\\link\x1b]8;;\x1b\\\x1b[r\x1b[?2026l")
say("\x1b[2;1H<2>"); sys.stdin.readline()
say("\x1b[?1049l<3>"); sys.stdin.readline()
"#;
    let mut both = Both::start("stty -echo; exec python3 paint.py", &[("paint.py", program)]);
    both.agree("painted", |text| text.contains("<1>"));
    both.kill_the_mux();
    both.step("\r", "<2>");
    both.attach_anew();
    both.step("\r", "<3>");
    both.ends("\r");
}

/// What `vt100` alone does not know, judged by tmux as far as that knows it: every cell of the screen after it.
#[test]
fn tmux_reads_the_same() {
    installed("tmux", "tmux");
    let cases = [
        ("insertion", r"abcdef\033[1;3H\033[4hXY\033[4lz"),
        ("repetition", r"ab\033[5b\r\n\033[1mc\033[3b\033[m"),
        ("no wrapping", r"\033[?7l\033[2;75Hnot further than here\033[?7h\r\nback"),
        ("SCOSC", r"one\033[sx\033[5;5Htwo\033[uthree"),
        ("tab stops", r"\033[3g\033[1;5H\033H\033[1;20H\033H\r\ta\tb\r\n\033[5CX\033[ZY"),
        ("alignment", r"\033#8"),
        ("region and origin", r"\033[3;8r\033[?6h\033[2;1Horigin\0337\033[?6l\033[1;1Hhome\0338again"),
        ("scrolled region", r"\033[2;5r\033[5;1Ha\r\nb\r\nc\r\nd\r\ne\033[r\033[10;1Hend"),
        ("erasing", r"0123456789\033[1;4H\033[2X\033[1;8H\033[1K\r\nabc\033[1Aup"),
        ("wide at the edge", r"\033[1;80H日\033[3;79H日x"),
        ("combining", r"e\0314\0201 日\0314\0201 \r\nZ"),
        (
            "renditions",
            r"\033[1mbold\033[22;3mitalic\033[23;4mline\033[24;7minverse\033[27;2mdim\033[m\r\n\033[1;31;44mboth\033[39;49mone\033[mnone",
        ),
        ("palettes", r"\033[94mbright\033[105mbehind\033[38;5;200m256\033[48;2;1;2;3mtrue\033[38:2::9:8:7mcolons\033[m"),
        ("erased in colour", r"\033[42m\033[3;1Habc\033[K\033[5;10Hx\033[1K\033[7;5Habc\033[2D\033[4X\033[9;1H\033[J\033[m\033[12;1Hplain"),
        ("torn", r"\033[1;3\00731mred\033[m\033]0;title\033\\after\033P1$qm\033\\."),
    ];
    let mut differ = Vec::new();
    for (name, bytes) in cases {
        // Painted while it looks on: what it paints again later has lost the background of what was erased. (And where it
        // scrolls, inserts or deletes in colour, `vt100`, which stands for its terminal here, does not know what comes in.)
        let waits = "stty raw -echo; printf ready; head -c 1 >/dev/null; printf '\\033[2J\\033[H'";
        let capsule = Capsule::start(&format!("{waits}; printf '{bytes}'; printf '\\033[22;70H<end>'; exec cat"));
        let mut ours = Terminal::attach(&capsule, WINDOW);
        let (body, socket) = (inside(WINDOW), capsule.path("tmux"));
        std::fs::write(capsule.path("tmux.conf"), "set -g status off\nset -ga terminal-overrides ',xterm*:RGB'\n").unwrap();
        let [conf, script] = ["tmux.conf", "entrypoint"].map(|name| capsule.path(name));
        let tmux = format!("exec tmux -uS {} -f {} new-session {}", socket.display(), conf.display(), script.display());
        let mut theirs = Terminal::direct(&capsule, &tmux, Size { rows: body.rows, cols: body.cols });
        for terminal in [&mut ours, &mut theirs] {
            terminal.wait_for("ready");
            terminal.type_keys("x");
            terminal.wait_for("<end>");
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while let Some(found) = differences(&ours, body, &theirs) {
            if Instant::now() > deadline {
                differ.push(format!("{name}: {found}\n--- ours\n{}\n--- tmux\n{}", ours.text(), theirs.text()));
                break;
            }
            theirs.take_soon(Duration::from_millis(20));
            ours.take();
        }
        assert!(Command::new("tmux").arg("-S").arg(&socket).arg("kill-server").status().unwrap().success());
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

/// A program whose numbers change while one looks.
struct Live {
    capsule: Capsule,
    ours: Terminal,
}

impl Live {
    fn start(command: &str, shows: &str) -> Self {
        let agent = format!(
            "[ \"$JACKIN_SESSION_ID\" = 1 ] || {{ echo a neighbour; exec cat; }}\nexport LANG=C.UTF-8 LC_ALL=C.UTF-8; exec {command}"
        );
        let capsule = Capsule::start(&agent);
        let mut ours = Terminal::attach(&capsule, WINDOW);
        ours.wait_for(shows);
        Self { capsule, ours }
    }

    /// What the operator sees is what `read` tells, row by row.
    fn agree(&mut self, when: &str, body: Rect, shown: impl Fn(&str) -> bool) {
        self.agree_as(when, body, shown, |text| text.to_owned());
    }

    /// `comparable` takes away what may differ.
    fn agree_as(&mut self, when: &str, body: Rect, shown: impl Fn(&str) -> bool, comparable: impl Fn(&str) -> String) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let told = read(&self.capsule);
            // Until the picture has stood still for a moment, it may be older than what was just told.
            while self.ours.take_soon(Duration::from_millis(20)) {}
            let seen: String = self
                .ours
                .screen()
                .rows(body.col, body.cols)
                .skip(body.row.into())
                .take(body.rows.into())
                .map(|row| row.trim_end().to_owned() + "\n")
                .collect();
            let told_rows: String = told.lines().map(|row| row.trim_end().to_owned() + "\n").collect();
            if shown(&seen) && comparable(seen.trim_end()) == comparable(told_rows.trim_end()) {
                return;
            }
            assert!(Instant::now() < deadline, "{when}\n--- the operator sees\n{seen}\n--- read tells\n{told}");
        }
    }
}

fn watch_live(command: &str, shows: &str, keys: &[(&str, &str)]) {
    let mut live = Live::start(command, shows);
    let body = inside(WINDOW);
    live.agree("started", body, |text| text.contains(shows));
    for (keys, shown) in keys {
        live.ours.type_keys(keys);
        live.agree(&format!("after {keys:?}"), body, |text| text.contains(shown));
    }
    live.ours.type_keys("\x1cd");
    live.ours.wait_for_exit();
    live.ours = Terminal::attach(&live.capsule, WINDOW);
    live.agree("attached anew", body, |text| text.contains(shows));
    let (mux, before) = (live.capsule.mux_pid(), live.ours.raw.len());
    kill("KILL", mux);
    live.ours.wait_for_raw(before, "\x1b[2J");
    live.agree("after the mux was killed", body, |text| text.contains(shows));
    let window = Size { rows: 36, cols: 110 };
    live.ours.resize(window);
    live.agree("larger", inside(window), |text| text.contains(shows) && text.lines().count() == 34);
    live.ours.type_keys("\x1c%");
    live.ours.wait_for("Codex");
    live.ours.type_keys("\r");
    live.ours.wait_for("a neighbour");
    let col = live.ours.find("a neighbour").unwrap().1;
    // A program that paints over rows which wrapped when the pane became narrower leaves them marked so; `read` joins them.
    let squeezed = |text: &str| text.split_whitespace().collect::<String>();
    let beside = Rect { row: 2, col: 0, rows: 33, cols: col - 1 };
    live.agree_as("beside a neighbour", beside, |text| text.contains(shows), squeezed);
    live.ours.type_keys("\x1ch\x1cz");
    live.agree("zoomed", inside(window), |text| text.contains(shows));
    live.ours.type_keys("q");
    live.ours.wait_for("a neighbour");
    live.ours.type_keys("\x04");
    live.ours.wait_for_exit();
    assert_eq!(live.capsule.wait().code(), Some(0));
}

#[test]
fn top() {
    installed("top", "procps");
    watch_live(
        "top -d 5",
        "PID USER",
        &[("c", "PID USER"), ("1", "PID USER"), ("M", "PID USER"), ("h", "Scale time"), ("\x1b", "PID USER")],
    );
}

#[test]
fn htop() {
    installed("htop", "htop");
    watch_live(
        "htop -d 50",
        "F1Help",
        &[
            ("\x1b[15~", "F5List"),
            ("\x1bOQ", "Setup"),
            ("\x1b", "F5List"),
            ("\x1bOR", "Search:"),
            ("\x1b", "F1Help"),
            ("\x1b[6~", "F1Help"),
        ],
    );
}
