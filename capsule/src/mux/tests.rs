use super::*;
use crate::control::{Event, SessionState};
use crate::wire::AttachMode;

pub(super) const ONE: ClientId = ClientId(1);
pub(super) const TWO: ClientId = ClientId(2);
const ASKER: ClientId = ClientId(99);
const FIRST: SessionId = SessionId(1);
const SECOND: SessionId = SessionId(2);

/// A mux and the clock it lives by.
pub(super) struct Capsule {
    pub mux: Mux,
    pub now: Millis,
}

impl Capsule {
    pub fn new() -> Self {
        let config = "role=\"r\"\nworkdir=\"/w\"\nagents=[\"claude\"]\n[auth_modes]\nclaude=\"sync\"\n";
        Self::with(config)
    }

    fn with(config: &str) -> Self {
        let settings = Settings {
            config: LaunchConfig::parse(config).unwrap(),
            policy: Policy::default(),
            bindings: Bindings::default(),
            escape_time: super::escape_time(None),
            packs: Packs::embedded(),
            identity: Identity { instance: "k7p2".into(), container: "jk-k7p2".into() },
            socket: "/s".into(),
            keys: BTreeSet::new(),
            fault: Some("unspeakable".into()),
        };
        Self { mux: Mux::new(settings), now: 1000 }
    }

    /// With its first session running and a client that has its first frame.
    fn attached() -> Self {
        let mut capsule = Self::new();
        capsule.step(Input::Ready { initial: "claude", kept: None });
        capsule.step(Input::Spawned { session: FIRST, started_at: 0, history: None });
        capsule.attach(ONE, AttachMode::Takeover, 24, 80);
        capsule
    }

    pub fn step(&mut self, input: Input<'_>) -> Vec<Effect> {
        self.mux.step(self.now, input)
    }

    fn later(&mut self, ms: Millis, input: Input<'_>) -> Vec<Effect> {
        self.now += ms;
        self.step(input)
    }

    fn attach(&mut self, client: ClientId, mode: AttachMode, rows: u16, cols: u16) -> Vec<Effect> {
        let hello = Hello { rows, cols, term: "xterm-256color".into(), ctx: Ctx { mode, ..Ctx::default() }, ..Hello::default() };
        let effects = self.step(Input::Attached { client, hello });
        self.step(Input::Drained(client));
        effects
    }

    fn output(&mut self, session: SessionId, bytes: &[u8]) -> Vec<Effect> {
        self.step(Input::Output { session, bytes })
    }

    fn types(&mut self, client: ClientId, bytes: &[u8]) -> Vec<Effect> {
        self.step(Input::Frame { client, frame: ClientFrame::Input(bytes.to_vec()) })
    }

    /// The keys, and the new session that they ask for.
    fn new_session(&mut self, keys: &[u8], session: SessionId) {
        let effects = self.types(ONE, keys);
        assert!(effects.iter().any(|e| matches!(e, Effect::Spawn { session: s, .. } if *s == session)), "{effects:?}");
        self.step(Input::Spawned { session, started_at: 0, history: None });
        self.step(Input::Drained(ONE));
    }

    fn ask(&mut self, request: Request) -> Option<Reply> {
        let effects = self.step(Input::Asked { client: ASKER, request, ctx: Ctx::default() });
        effects.into_iter().find_map(|effect| match effect {
            Effect::Reply { client: ASKER, reply, .. } => Some(reply),
            _ => None,
        })
    }

    /// A shell by request, which begins if it may.
    fn ask_for_shell(&mut self) -> Option<Reply> {
        let request = Request::SessionSpawn { agent: None, provider: None, cwd: None };
        let mut effects = self.step(Input::Asked { client: ASKER, request, ctx: Ctx::default() });
        if let Some(session) = effects.iter().find_map(|e| if let Effect::Spawn { session, .. } = e { Some(*session) } else { None }) {
            assert!(!effects.iter().any(|e| matches!(e, Effect::Reply { .. })), "before it has begun: {effects:?}");
            effects = self.step(Input::Spawned { session, started_at: 0, history: None });
        }
        effects.into_iter().find_map(|e| if let Effect::Reply { client: ASKER, reply, .. } = e { Some(reply) } else { None })
    }

    /// Once every client has taken what it was sent.
    fn picture(&mut self) -> String {
        self.settle();
        self.mux.picture.text()
    }

    fn settle(&mut self) {
        self.now += FRAME;
        while (0..3).any(|client| drawn(&self.step(Input::Drained(ClientId(client)))) > 0) {}
    }
}

fn drawn(effects: &[Effect]) -> usize {
    effects.iter().filter(|e| matches!(e, Effect::Send { frame: ServerFrame::Output(_), .. })).count()
}

fn written(effects: &[Effect], to: SessionId) -> Vec<u8> {
    let bytes = effects.iter().filter_map(|effect| match effect {
        Effect::Write { session, bytes } if *session == to => Some(bytes.as_slice()),
        _ => None,
    });
    bytes.collect::<Vec<_>>().concat()
}

fn told(effects: &[Effect], to: ClientId) -> Option<ShutdownReason> {
    effects.iter().find_map(|effect| match effect {
        Effect::Send { client, frame: ServerFrame::Shutdown(reason) } if *client == to => Some(reason.clone()),
        _ => None,
    })
}

// ---- pace ----

#[test]
fn typing_is_drawn_at_once_and_a_flood_when_a_frame_is_due() {
    let mut capsule = Capsule::attached();
    capsule.now += FRAME;
    assert_eq!(drawn(&capsule.output(FIRST, b"a")), 1);
    capsule.step(Input::Drained(ONE));
    assert_eq!(drawn(&capsule.output(FIRST, b"b")), 1);
    capsule.step(Input::Drained(ONE));
    let mut frames = 0;
    for i in 0..50u8 {
        frames += drawn(&capsule.output(FIRST, &[b'a' + i % 26; 4000])) + drawn(&capsule.step(Input::Drained(ONE)));
    }
    assert!(frames <= 2, "{frames} frames for one flooded moment");
    assert_eq!(drawn(&capsule.later(FRAME, Input::Tick)), 1);
}

#[test]
fn an_echo_beside_a_flood_is_drawn_at_once() {
    let mut capsule = Capsule::attached();
    capsule.new_session(b"\x1c%s", SECOND);
    for _ in 0..4 {
        capsule.now += FRAME;
        capsule.output(FIRST, &[b'x'; 20_000]);
        capsule.step(Input::Drained(ONE));
    }
    capsule.output(FIRST, &[b'y'; 20_000]);
    assert_eq!(drawn(&capsule.output(SECOND, b"e")), 1);
    let picture = capsule.mux.picture.text();
    assert!(picture.contains('e') && !picture.contains('y'), "{picture}");
}

#[test]
fn nothing_wakes_an_idle_mux() {
    let mut capsule = Capsule::attached();
    capsule.output(FIRST, &[b'x'; 20_000]);
    capsule.step(Input::Drained(ONE));
    for _ in 0..100 {
        match capsule.mux.next_deadline() {
            None => return,
            Some(at) => capsule.now = capsule.now.max(at),
        }
        for effect in capsule.step(Input::Tick) {
            if let Effect::Probe(sessions) = effect {
                let probe = Probe { alive: true, agent: Some("claude".into()), cpu_ticks: Some(0), ..Probe::default() };
                capsule.step(Input::Probed(sessions.into_iter().map(|id| (id, probe.clone())).collect()));
            }
        }
        capsule.step(Input::Drained(ONE));
    }
    panic!("still wants to be woken at {:?}", capsule.mux.next_deadline());
}

#[test]
fn a_busy_client_gets_one_frame_with_everything_when_it_is_ready() {
    let mut capsule = Capsule::attached();
    capsule.now += FRAME;
    assert_eq!(drawn(&capsule.output(FIRST, b"one ")), 1);
    for word in ["two ", "three "] {
        assert_eq!(drawn(&capsule.output(FIRST, word.as_bytes())), 0);
    }
    let effects = capsule.step(Input::Drained(ONE));
    assert_eq!(drawn(&effects), 1);
    assert!(capsule.picture().contains("one two three"), "{}", capsule.picture());
}

#[test]
fn a_frame_in_the_making_is_held_but_not_for_ever() {
    let mut capsule = Capsule::attached();
    capsule.now += FRAME;
    assert_eq!(drawn(&capsule.output(FIRST, b"\x1b[?2026hhalf")), 0);
    assert_eq!(drawn(&capsule.output(FIRST, b" whole\x1b[?2026l")), 1);
    capsule.step(Input::Drained(ONE));
    capsule.output(FIRST, b"\x1b[?2026hstuck");
    let waited = (1..100).find(|_| drawn(&capsule.later(FRAME, Input::Tick)) == 1);
    assert!(waited.is_some_and(|frames| (5..20).contains(&frames)), "{waited:?}");
}

#[test]
fn of_a_program_that_always_paints_whole_frames_are_shown() {
    let mut capsule = Capsule::attached();
    let frame = |n: u32| format!("\x1b[?2026h\x1b[2J\x1b[Hframe {n} begins\r\nand ends\x1b[?2026l");
    for n in 0..20 {
        capsule.now += FRAME;
        let (whole, next) = (frame(n), frame(n + 1));
        capsule.output(FIRST, [whole.as_bytes(), &next.as_bytes()[..40]].concat().as_slice());
        let picture = capsule.mux.picture.text();
        assert!(picture.contains(&format!("frame {n} begins")) && picture.contains("and ends"), "{n}: {picture}");
        capsule.output(FIRST, &next.as_bytes()[40..]);
        capsule.step(Input::Drained(ONE));
    }
}

// ---- sessions ----

#[test]
fn a_checkpoint_follows_much_output_and_every_resize() {
    let mut capsule = Capsule::attached();
    let effects = capsule.output(FIRST, &vec![b'x'; 256 << 10]);
    assert!(effects.iter().any(|e| matches!(e, Effect::Checkpoint { session: FIRST, .. })));
    let effects = capsule.step(Input::Frame { client: ONE, frame: ClientFrame::Resize { rows: 40, cols: 100 } });
    let size = Size { rows: 38, cols: 100 };
    assert!(effects.contains(&Effect::Resize { session: FIRST, size }), "{effects:?}");
    assert!(effects.iter().any(|e| matches!(e, Effect::Checkpoint { size: s, .. } if *s == size)));
}

#[test]
fn the_table_and_the_layout_of_an_earlier_mux_are_continued() {
    let mut before = Capsule::attached();
    before.new_session(b"\x1c\"s", SECOND);
    before.types(ONE, b"\x1c,deploy\r");
    let effects = before.types(ONE, b"\x1cz");
    let kept = effects.iter().find_map(|e| if let Effect::Keep(kept) = e { Some(kept.clone()) } else { None }).unwrap();

    let meta = Meta { codename: "birch".into(), label: "Claude".into(), agent: Some("claude".into()), provider: None };
    let size = Size { rows: 10, cols: 40 };
    let mut capsule = Capsule::new();
    let ended = Some(Ended { at: 60, code: Some(0) });
    capsule.step(Input::Recalled(Record { id: SessionId(6), meta: meta.clone(), started_at: 1, ended }));
    for id in [FIRST, SECOND, SessionId(7)] {
        let record = Record { id, meta: meta.clone(), started_at: 2, ended: None };
        capsule.step(Input::Adopted { record, size, replay: b"\x1b[6nseen", history: None });
    }
    // Nothing is started anew, and the query in the replay is not answered a second time.
    let effects = capsule.step(Input::Ready { initial: "claude", kept: Some(&kept) });
    assert!(!effects.iter().any(|e| matches!(e, Effect::Spawn { .. } | Effect::Write { .. })), "{effects:?}");
    let Some(Reply::Snapshot { tabs, active_tab: 0 }) = capsule.ask(Request::Snapshot) else { panic!() };
    assert_eq!((tabs[0].label.as_str(), tabs[0].panes.len(), tabs[0].focused_pane), ("deploy", 2, 2));
    assert_eq!(tabs[1].panes[0].session_id, 7, "a session that the layout does not know");
    let Some(Reply::SessionRead(read)) = capsule.ask(Request::SessionRead { session_id: Some(7), history: None }) else { panic!() };
    assert_eq!(read.text.trim(), "seen");
    let Some(Reply::AgentRegistry { records }) = capsule.ask(Request::Agents) else { panic!() };
    assert_eq!(records.len(), 4);
    assert_eq!(capsule.ask_for_shell(), Some(Reply::Spawned { session_id: 8 }), "ids go on after the highest");
}

#[test]
fn a_screen_that_fails_is_one_session_s_and_leaves_its_scrollback() {
    let mut capsule = Capsule::attached();
    capsule.new_session(b"\x1c%s", SECOND);
    capsule.output(SECOND, b"\r\n\n\n\nthe other");
    let lines: String = (0..60).map(|line| format!("line {line}\r\n")).collect();
    capsule.output(FIRST, lines.as_bytes());
    let before = capsule.mux.live[&FIRST].screen.history_len();
    let effects = capsule.output(FIRST, b"\x1b[?1049h what is unspeakable");
    assert!(effects.contains(&Effect::Repaint(FIRST)), "{effects:?}");
    // What would come back after a crash is free of it.
    let spooled = effects.iter().find_map(|e| if let Effect::Checkpoint { session: FIRST, bytes, .. } = e { Some(bytes) } else { None });
    assert!(spooled.is_some_and(|bytes| memchr::memmem::find(bytes, b"line").is_none()), "{effects:?}");
    assert!(before > 20 && capsule.mux.live[&FIRST].screen.history_len() == before);
    capsule.settle();
    assert!(capsule.picture().contains("the other") && capsule.picture().contains("began anew"), "{}", capsule.picture());
    capsule.output(FIRST, b"and on");
    capsule.settle();
    assert!(capsule.picture().contains("and on"), "{}", capsule.picture());
}

#[test]
fn a_replay_that_fails_is_one_session_s() {
    let mut capsule = Capsule::new();
    let meta = Meta { codename: "amber".into(), label: "Claude".into(), agent: Some("claude".into()), provider: None };
    let record = |id| Record { id, meta: meta.clone(), started_at: 0, ended: None };
    let size = Size { rows: 22, cols: 80 };
    let effects = capsule.step(Input::Adopted { record: record(FIRST), size, replay: b"unspeakable", history: None });
    assert!(effects.iter().any(|e| matches!(e, Effect::Checkpoint { session: FIRST, .. })), "{effects:?}");
    capsule.step(Input::Adopted { record: record(SECOND), size, replay: b"unharmed", history: None });
    capsule.step(Input::Ready { initial: "claude", kept: None });
    capsule.attach(ONE, AttachMode::Takeover, 24, 80);
    assert_eq!(capsule.mux.live.len(), 2);
    assert!(capsule.mux.live[&SECOND].visible_rows()[0].contains("unharmed"));
}

#[test]
fn a_garbled_layout_is_no_reason_to_lose_a_session() {
    let mut capsule = Capsule::new();
    let meta = Meta { codename: "elm".into(), label: "shell".into(), agent: None, provider: None };
    let record = Record { id: FIRST, meta, started_at: 2, ended: None };
    capsule.step(Input::Adopted { record, size: Size { rows: 10, cols: 40 }, replay: b"here", history: None });
    capsule.step(Input::Ready { initial: "claude", kept: Some("{\"layout\": 7") });
    capsule.attach(ONE, AttachMode::Takeover, 24, 80);
    assert!(capsule.picture().contains("here"));
}

#[test]
fn sessions_have_a_limit_and_tabs_too() {
    let mut capsule = Capsule::attached();
    let started = (0..100).filter(|_| matches!(capsule.ask_for_shell(), Some(Reply::Spawned { .. }))).count();
    assert_eq!(started + 1, crate::layout::MAX_TABS);
}

#[test]
fn names_are_not_used_twice() {
    let mut names: Vec<_> = (1..500).map(|id| sessions::codename(SessionId(id))).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 499);
}

#[test]
fn the_last_frame_goes_out_and_then_the_end_is_told() {
    let mut capsule = Capsule::attached();
    capsule.now += FRAME;
    assert_eq!(drawn(&capsule.output(FIRST, b"busy")), 1);
    capsule.output(FIRST, b"\x1b[?2026hlast words");
    let effects = capsule.step(Input::Ended { session: FIRST, ended: Ended { at: 9, code: Some(3) } });
    assert_eq!(drawn(&effects), 1, "also behind a frame that is on its way");
    assert_eq!(told(&effects, ONE), Some(ShutdownReason::SessionEnded(Some(3))));
    assert!(effects.contains(&Effect::Finish(0)));
    assert!(capsule.picture().contains("last words"));
}

#[test]
fn exit_asks_and_its_end_is_no_failure() {
    let mut capsule = Capsule::attached();
    capsule.new_session(b"\x1ccs", SECOND);
    assert!(!capsule.types(ONE, b"\x11").iter().any(|e| matches!(e, Effect::Kill(_))), "Ctrl+Q only asks");
    assert!(capsule.picture().contains("End the sessions"), "{}", capsule.picture());
    let effects = capsule.types(ONE, b"y");
    assert!(effects.contains(&Effect::Kill(FIRST)) && effects.contains(&Effect::Kill(SECOND)));
    capsule.step(Input::Ended { session: FIRST, ended: Ended { at: 9, code: None } });
    let effects = capsule.step(Input::Ended { session: SECOND, ended: Ended { at: 9, code: None } });
    assert_eq!(told(&effects, ONE), Some(ShutdownReason::SessionEnded(Some(0))));
}

#[test]
fn who_closes_the_last_tab_leaves_and_that_is_no_failure() {
    let mut capsule = Capsule::attached();
    capsule.new_session(b"\x1c%s", SECOND);
    let effects = capsule.types(ONE, b"\x1c&y");
    assert!(effects.contains(&Effect::Kill(FIRST)) && effects.contains(&Effect::Kill(SECOND)));
    capsule.step(Input::Ended { session: FIRST, ended: Ended { at: 9, code: None } });
    assert!(capsule.mux.toasts.is_empty(), "what was asked for is no news");
    let effects = capsule.step(Input::Ended { session: SECOND, ended: Ended { at: 9, code: None } });
    assert_eq!(told(&effects, ONE), Some(ShutdownReason::SessionEnded(Some(0))));
}

#[test]
fn a_session_begun_after_the_last_was_closed_ends_in_its_own_way() {
    let mut capsule = Capsule::attached();
    assert_eq!(capsule.ask(Request::SessionClose { session_id: 1 }), Some(Reply::Ack));
    capsule.new_session(b"\x1ccs", SECOND);
    capsule.step(Input::Ended { session: FIRST, ended: Ended { at: 9, code: None } });
    let effects = capsule.step(Input::Ended { session: SECOND, ended: Ended { at: 9, code: Some(3) } });
    assert_eq!(told(&effects, ONE), Some(ShutdownReason::SessionEnded(Some(3))));
}

#[test]
fn after_an_exit_nothing_begins() {
    let mut capsule = Capsule::attached();
    capsule.types(ONE, b"\x11y");
    let effects = capsule.types(ONE, b"\x1ccs");
    assert!(!effects.iter().any(|e| matches!(e, Effect::Spawn { .. })), "{effects:?}");
    let reply = capsule.ask(Request::SessionSpawn { agent: None, provider: None, cwd: None });
    assert!(matches!(reply, Some(Reply::Error { .. })), "{reply:?}");
}

#[test]
fn exit_ends_a_session_that_has_not_begun_too() {
    let mut capsule = Capsule::attached();
    capsule.types(ONE, b"\x1ccs");
    let effects = capsule.types(ONE, b"\x11y");
    assert!(effects.contains(&Effect::Kill(FIRST)) && effects.contains(&Effect::Kill(SECOND)), "{effects:?}");
    capsule.step(Input::Ended { session: FIRST, ended: Ended { at: 9, code: None } });
    capsule.step(Input::Spawned { session: SECOND, started_at: 0, history: None });
    let effects = capsule.step(Input::Ended { session: SECOND, ended: Ended { at: 9, code: None } });
    assert_eq!(told(&effects, ONE), Some(ShutdownReason::SessionEnded(Some(0))));
}

#[test]
fn of_what_ended_without_a_mux_the_latest_tells_the_code() {
    let mut capsule = Capsule::new();
    let meta = Meta { codename: "elm".into(), label: "shell".into(), agent: None, provider: None };
    for (id, at, code) in [(1, 90, 3), (2, 60, 0)] {
        let ended = Some(Ended { at, code: Some(code) });
        capsule.step(Input::Recalled(Record { id: SessionId(id), meta: meta.clone(), started_at: 1, ended }));
    }
    capsule.step(Input::Ready { initial: "claude", kept: None });
    let effects = capsule.attach(ONE, AttachMode::Takeover, 24, 80);
    assert_eq!(told(&effects, ONE), Some(ShutdownReason::SessionEnded(Some(3))));
}

#[test]
fn unsaved_work_is_asked_about_and_the_answer_written() {
    let config = "role=\"r\"\nworkdir=\"/w\"\nagents=[\"claude\"]\ndirty_exit_policy=\"ask\"\nisolated_worktrees=[\"/w\"]\n[auth_modes]\nclaude=\"sync\"\n";
    let mut capsule = Capsule::with(config);
    capsule.step(Input::Ready { initial: "claude", kept: None });
    capsule.step(Input::Spawned { session: FIRST, started_at: 0, history: None });
    capsule.attach(ONE, AttachMode::Takeover, 24, 80);
    assert!(capsule.types(ONE, b"\x11").contains(&Effect::InspectChanges));
    capsule.step(Input::Changes(vec![Change { path: "/w".into(), changed: 2, unpushed: 1, unknown: None }]));
    assert!(capsule.picture().contains("2 changed, 1 unpushed"), "{}", capsule.picture());
    let effects = capsule.types(ONE, b"k");
    assert!(effects.contains(&Effect::WriteExitAction("keep")) && effects.contains(&Effect::Kill(FIRST)), "{effects:?}");
}

#[test]
fn a_question_does_not_wait_for_the_next_to_attach() {
    let mut capsule = Capsule::attached();
    capsule.attach(TWO, AttachMode::Watch, 24, 80);
    capsule.types(ONE, b"\x1cd");
    capsule.step(Input::Changes(vec![Change { path: "/w".into(), changed: 2, unpushed: 1, unknown: None }]));
    capsule.attach(ONE, AttachMode::Takeover, 24, 80);
    assert_eq!(written(&capsule.types(ONE, b"k"), FIRST), b"k");
}

#[test]
fn a_question_is_gone_with_whoever_was_asked() {
    let mut capsule = Capsule::attached();
    // The terminal's window is closed, so nobody says good-bye.
    capsule.types(ONE, b"\x11");
    assert!(capsule.picture().contains("End the sessions"), "{}", capsule.picture());
    capsule.step(Input::Gone(ONE));
    capsule.attach(TWO, AttachMode::Takeover, 24, 80);
    assert_eq!(written(&capsule.types(TWO, b"\r"), FIRST), b"\r");
    // Or somebody takes over.
    capsule.types(TWO, b"\x11");
    capsule.attach(ONE, AttachMode::Takeover, 24, 80);
    assert_eq!(written(&capsule.types(ONE, b"\r"), FIRST), b"\r");
}

#[test]
fn a_checkout_that_cannot_be_inspected_counts_as_unsaved() {
    let mut capsule = Capsule::attached();
    let unknown = Some("cannot be inspected: git took too long".to_owned());
    let changes = || vec![Change { path: "/w".into(), changed: 0, unpushed: 0, unknown: unknown.clone() }];
    capsule.step(Input::Changes(changes()));
    assert!(capsule.picture().contains("git took too long"), "{}", capsule.picture());
    let effects = capsule.types(ONE, b"1");
    assert!(effects.iter().any(|e| matches!(e, Effect::Spawn { cwd: Some(cwd), .. } if cwd == "/w")), "{effects:?}");
    capsule.step(Input::Changes(changes()));
    capsule.types(ONE, b"\x1b\x1b");
    capsule.step(Input::Changes(Vec::new()));
    assert!(!capsule.picture().contains("git took too long"), "{}", capsule.picture());
}

#[test]
fn the_beginning_of_a_key_is_waited_for_as_long_as_one_wishes() {
    let mut capsule = Capsule::attached();
    assert_eq!([None, Some("soon"), Some("-1"), Some("0"), Some("99999")].map(super::escape_time), [50, 50, 50, 0, 5000]);
    for limit in [50, 400] {
        capsule.mux.settings.escape_time = limit;
        assert_eq!(written(&capsule.types(ONE, b"\x1b["), FIRST), b"");
        assert_eq!(written(&capsule.later(limit - 1, Input::Tick), FIRST), b"");
        assert_eq!(written(&capsule.later(1, Input::Tick), FIRST), b"\x1b[");
    }
}

// ---- clients ----

#[test]
fn a_takeover_displaces_those_who_type_and_watchers_stay() {
    let mut capsule = Capsule::attached();
    capsule.attach(TWO, AttachMode::Watch, 50, 120);
    let effects = capsule.attach(ClientId(3), AttachMode::Takeover, 30, 90);
    assert_eq!(told(&effects, ONE), Some(ShutdownReason::TakenOver));
    assert_eq!(told(&effects, TWO), None);
    assert_eq!(capsule.mux.size, Size { rows: 30, cols: 90 });
}

#[test]
fn shared_clients_all_type_and_the_smallest_decides() {
    let mut capsule = Capsule::attached();
    capsule.attach(TWO, AttachMode::Shared, 40, 60);
    assert_eq!(capsule.mux.size, Size { rows: 24, cols: 60 });
    assert_eq!(written(&capsule.types(ONE, b"a"), FIRST), b"a");
    assert_eq!(written(&capsule.types(TWO, b"b"), FIRST), b"b");
    capsule.step(Input::Gone(ONE));
    assert_eq!(capsule.mux.size, Size { rows: 40, cols: 60 });
}

#[test]
fn a_watcher_cannot_type_or_resize_but_can_leave() {
    let mut capsule = Capsule::attached();
    capsule.attach(TWO, AttachMode::Watch, 10, 30);
    assert_eq!(capsule.mux.size, Size { rows: 24, cols: 80 });
    assert_eq!(written(&capsule.types(TWO, b"rm -rf\r\x11y"), FIRST), b"");
    assert!(capsule.mux.overlay.is_none());
    assert_eq!(told(&capsule.types(TWO, b"\x1cd"), TWO), Some(ShutdownReason::Detached));
}

#[test]
fn a_slow_client_holds_nobody_up() {
    let mut capsule = Capsule::attached();
    let hello =
        Hello { rows: 24, cols: 80, term: "xterm".into(), ctx: Ctx { mode: AttachMode::Shared, ..Ctx::default() }, ..Hello::default() };
    // Never drained.
    capsule.step(Input::Attached { client: TWO, hello });
    capsule.step(Input::Drained(ONE));
    for i in 0..20 {
        capsule.now += FRAME;
        let effects = capsule.output(FIRST, format!("line {i}\r\n").as_bytes());
        let to = |client| {
            effects.iter().filter(|e| matches!(e, Effect::Send { client: c, frame: ServerFrame::Output(_) } if *c == client)).count()
        };
        assert_eq!((to(ONE), to(TWO)), (1, 0), "line {i}");
        capsule.step(Input::Drained(ONE));
    }
}

#[test]
fn what_is_typed_before_the_session_is_there_reaches_it() {
    let mut capsule = Capsule::new();
    capsule.step(Input::Ready { initial: "claude", kept: None });
    capsule.attach(ONE, AttachMode::Takeover, 24, 80);
    capsule.types(ONE, b"hello");
    assert_eq!(written(&capsule.step(Input::Spawned { session: FIRST, started_at: 0, history: None }), FIRST), b"hello");
}

#[test]
fn what_is_typed_for_each_of_two_new_sessions_reaches_it() {
    let mut capsule = Capsule::attached();
    capsule.types(ONE, b"\x1ccsfor two\x1ccsfor three");
    assert_eq!(written(&capsule.step(Input::Spawned { session: SECOND, started_at: 0, history: None }), SECOND), b"for two");
    assert_eq!(written(&capsule.step(Input::Spawned { session: SessionId(3), started_at: 0, history: None }), SessionId(3)), b"for three");
    // One that somebody else asks for does not take the keys.
    capsule.ask(Request::SessionSpawn { agent: None, provider: None, cwd: None });
    capsule.step(Input::Spawned { session: SessionId(4), started_at: 0, history: None });
    assert_eq!(written(&capsule.types(ONE, b"still three"), SessionId(3)), b"still three");
}

#[test]
fn a_watcher_does_not_move_the_focus() {
    let mut capsule = Capsule::attached();
    capsule.new_session(b"\x1c%s", SECOND);
    let ctx = Ctx { mode: AttachMode::Watch, ..Ctx::default() };
    let hello = Hello { rows: 24, cols: 80, focus: Some(1), ctx, ..Hello::default() };
    capsule.step(Input::Attached { client: TWO, hello });
    assert_eq!(capsule.mux.layout.focused(), Some(SECOND));
}

#[test]
fn detaching_keeps_everything() {
    let mut capsule = Capsule::attached();
    let effects = capsule.types(ONE, b"\x1cd");
    assert_eq!(told(&effects, ONE), Some(ShutdownReason::Detached));
    assert!(!effects.iter().any(|e| matches!(e, Effect::Kill(_) | Effect::Finish(_))));
}

// ---- keys, mouse, panes ----

#[test]
fn keys_go_through_unharmed_but_for_ours() {
    let mut capsule = Capsule::attached();
    for bytes in ["ls -la\r", "\x1b[A", "\x1bOP", "\x1bx", "\x03", "\x1b", "é漢", "\x1b[3;5~"] {
        assert_eq!(written(&capsule.types(ONE, bytes.as_bytes()), FIRST), bytes.as_bytes(), "{bytes:?}");
    }
    assert_eq!(written(&capsule.types(ONE, b"\x1c\x1c"), FIRST), b"\x1c");
    capsule.output(FIRST, b"\x1b[>1u");
    for bytes in ["\x1b[97;5u", "\x1b[13;2u", "\x1b[97;1:3u"] {
        assert_eq!(written(&capsule.types(ONE, bytes.as_bytes()), FIRST), bytes.as_bytes(), "{bytes:?}");
    }
    // The leader is known in that spelling too.
    assert_eq!(told(&capsule.types(ONE, b"\x1b[92;5ud"), ONE), Some(ShutdownReason::Detached));
}

#[test]
fn pastes_are_bracketed_only_for_who_asked() {
    let mut capsule = Capsule::attached();
    assert_eq!(written(&capsule.types(ONE, b"\x1b[200~a\rb\x1b[201~"), FIRST), b"a\rb");
    capsule.output(FIRST, b"\x1b[?2004h");
    assert_eq!(written(&capsule.types(ONE, b"\x1b[200~a\rb\x1b[201~"), FIRST), b"\x1b[200~a\rb\x1b[201~");
}

#[test]
fn splits_focus_zoom_and_close() {
    let mut capsule = Capsule::attached();
    capsule.new_session(b"\x1c%s", SECOND);
    assert_eq!(written(&capsule.types(ONE, b"2"), SECOND), b"2");
    assert_eq!(written(&capsule.types(ONE, b"\x1ch1"), FIRST), b"1");
    capsule.types(ONE, b"\x1cz");
    assert_eq!(capsule.mux.placed.panes.len(), 1);
    capsule.types(ONE, b"\x1cz");
    assert_eq!(capsule.mux.placed.panes.len(), 2);
    let effects = capsule.types(ONE, b"\x1cx");
    assert!(!effects.iter().any(|e| matches!(e, Effect::Kill(_))), "it asks first");
    assert!(capsule.types(ONE, b"y").contains(&Effect::Kill(FIRST)));
    capsule.step(Input::Ended { session: FIRST, ended: Ended { at: 1, code: None } });
    assert_eq!(capsule.mux.layout.focused(), Some(SECOND));
}

#[test]
fn a_click_focuses_and_a_drag_selects_and_copies() {
    let mut capsule = Capsule::attached();
    capsule.new_session(b"\x1c%s", SECOND);
    capsule.output(FIRST, b"some words here");
    let body = capsule.mux.placed.panes.iter().find(|pane| pane.session == FIRST).unwrap().body;
    let at = |col: u16, end: char, button: u8| format!("\x1b[<{button};{};{}{end}", body.col + col + 1, body.row + 1);
    capsule.types(ONE, at(5, 'M', 0).as_bytes());
    assert_eq!(capsule.mux.layout.focused(), Some(FIRST));
    capsule.types(ONE, at(9, 'M', 32).as_bytes());
    capsule.settle();
    let effects = capsule.types(ONE, at(9, 'm', 0).as_bytes());
    let sent: Vec<u8> = effects
        .iter()
        .filter_map(|e| if let Effect::Send { frame: ServerFrame::Output(b), .. } = e { Some(b.clone()) } else { None })
        .flatten()
        .collect();
    // "words", in base64.
    assert!(String::from_utf8_lossy(&sent).contains("\x1b]52;c;d29yZHM="), "{:?}", String::from_utf8_lossy(&sent));
}

#[test]
fn a_program_that_wants_the_mouse_gets_it_in_its_own_coordinates() {
    let mut capsule = Capsule::attached();
    capsule.output(FIRST, b"\x1b[?1002h\x1b[?1006h");
    assert_eq!(written(&capsule.types(ONE, b"\x1b[<0;5;4M"), FIRST), b"\x1b[<0;5;3M");
    assert_eq!(written(&capsule.types(ONE, b"\x1b[<35;5;4M"), FIRST), b"", "moves are not in its mode");
}

#[test]
fn the_wheel_scrolls_history_and_typing_comes_back() {
    let mut capsule = Capsule::attached();
    let lines: String = (0..100).map(|i| format!("line {i}\r\n")).collect();
    capsule.output(FIRST, lines.as_bytes());
    capsule.now += FRAME;
    capsule.types(ONE, b"\x1b[<64;5;5M");
    capsule.step(Input::Drained(ONE));
    let picture = capsule.picture();
    assert!(picture.contains("line 76") && !picture.contains("line 99"), "{picture}");
    // Anchored while output goes on.
    capsule.now += FRAME;
    capsule.output(FIRST, b"more\r\nmore\r\n");
    capsule.step(Input::Drained(ONE));
    let picture = capsule.picture();
    assert!(picture.contains("line 76") && !picture.contains("more"), "{picture}");
    assert_eq!(written(&capsule.types(ONE, b"x"), FIRST), b"x");
    capsule.step(Input::Drained(ONE));
    assert!(capsule.picture().contains("more"));
}

#[test]
fn how_far_a_view_is_scrolled_back_stays_told_while_output_arrives() {
    let mut capsule = Capsule::attached();
    capsule.output(FIRST, "line\r\n".repeat(100).as_bytes());
    capsule.types(ONE, b"\x1b[<64;5;5M");
    let history = |capsule: &Capsule| capsule.mux.live[&FIRST].screen.history_len();
    let mark = |capsule: &Capsule| format!("{}/{}", capsule.mux.live[&FIRST].offset(), history(capsule));
    let (before, shown) = (history(&capsule), mark(&capsule));
    assert!(capsule.picture().contains(&shown), "{}", capsule.picture());
    capsule.output(FIRST, b"more\r\nmore\r\n");
    assert_eq!(history(&capsule), before + 2);
    let shown = mark(&capsule);
    assert!(capsule.picture().contains(&shown), "{}", capsule.picture());
}

#[test]
fn a_button_held_when_a_dialog_comes_is_let_go() {
    let mut capsule = Capsule::attached();
    capsule.output(FIRST, b"some words");
    capsule.types(ONE, b"\x1b[<0;1;2M\x1b[<32;5;2M\x1c\x1b[<0;5;2m");
    assert_eq!(capsule.mux.pressed, Pressed::Nothing);
}

#[test]
fn search_goes_to_where_it_stands() {
    let mut capsule = Capsule::attached();
    let lines: String = (0..200).map(|i| format!("line {i}\r\n")).collect();
    capsule.output(FIRST, lines.as_bytes());
    capsule.types(ONE, b"\x1c/line 42\r");
    capsule.now += FRAME;
    capsule.step(Input::Tick);
    assert!(capsule.picture().contains("line 42"), "{}", capsule.picture());
}

// ---- questions ----

#[test]
fn waiting_and_listening() {
    let mut capsule = Capsule::attached();
    let listener = ClientId(50);
    let effects = capsule.step(Input::Asked { client: listener, request: Request::EventsSubscribe, ctx: Ctx::default() });
    assert!(
        matches!(&effects[..], [Effect::Reply { reply: Reply::Event { event: Event::Sessions { .. } }, last: false, .. }, ..]),
        "{effects:?}"
    );
    let wait = Request::WaitSessionStatus { session_id: 1, states: vec![SessionState::Idle], timeout_ms: 500 };
    assert_eq!(capsule.ask(wait), None);
    let effects = capsule.later(500, Input::Tick);
    assert!(effects.iter().any(|e| matches!(e, Effect::Reply { reply: Reply::Waited { timed_out: true, .. }, .. })), "{effects:?}");
    let effects = capsule.step(Input::Ended { session: FIRST, ended: Ended { at: 1, code: Some(0) } });
    assert!(
        effects.iter().any(|e| matches!(e, Effect::Reply { reply: Reply::Event { event: Event::SessionEnded { session_id: 1, .. } }, .. }))
    );
}

#[test]
fn who_asks_for_a_session_hears_when_it_is_there_and_nobody_loses_the_focus() {
    let mut capsule = Capsule::attached();
    capsule.output(FIRST, b"\x1b[?1004h");
    let request = || Request::SessionSpawn { agent: None, provider: None, cwd: None };
    let effects = capsule.step(Input::Asked { client: ASKER, request: request(), ctx: Ctx::default() });
    assert!(effects.iter().any(|e| matches!(e, Effect::Spawn { session: SECOND, size: Size { rows: 22, cols: 80 }, .. })), "{effects:?}");
    assert!(!effects.iter().any(|e| matches!(e, Effect::Reply { .. } | Effect::Write { .. })), "{effects:?}");
    let effects = capsule.step(Input::SpawnFailed { session: SECOND, error: "no such program" });
    let heard =
        |effects: &[Effect]| effects.iter().find_map(|e| if let Effect::Reply { reply, .. } = e { Some(reply.clone()) } else { None });
    assert!(matches!(heard(&effects), Some(Reply::Error { message }) if message.contains("no such program")), "{effects:?}");
    assert_eq!(capsule.ask_for_shell(), Some(Reply::Spawned { session_id: 3 }));
    assert_eq!(capsule.mux.layout.focused(), Some(FIRST));
}

#[test]
fn a_program_hears_when_nobody_looks_any_more() {
    let mut capsule = Capsule::attached();
    capsule.output(FIRST, b"\x1b[?1004h");
    capsule.attach(TWO, AttachMode::Shared, 24, 80);
    let focus = |capsule: &mut Capsule, client, frame| written(&capsule.step(Input::Frame { client, frame }), FIRST);
    // As long as one of two terminals has the focus, there is somebody.
    assert_eq!(focus(&mut capsule, ONE, ClientFrame::FocusOut), b"");
    assert_eq!(focus(&mut capsule, TWO, ClientFrame::FocusOut), b"\x1b[O");
    assert_eq!(focus(&mut capsule, TWO, ClientFrame::FocusIn), b"\x1b[I");
    assert_eq!(written(&capsule.step(Input::Gone(TWO)), FIRST), b"\x1b[O");
    capsule.step(Input::Gone(ONE));
    assert_eq!(written(&capsule.attach(ONE, AttachMode::Takeover, 24, 80), FIRST), b"\x1b[I");
}

#[test]
fn size_and_colours_outlive_a_mux() {
    let mut capsule = Capsule::attached();
    let hello = Hello { rows: 50, cols: 200, background: Some([255, 255, 255]), ..Hello::default() };
    let effects = capsule.step(Input::Attached { client: TWO, hello });
    let kept = effects.iter().rev().find_map(|e| if let Effect::Keep(kept) = e { Some(kept.clone()) } else { None }).unwrap();
    let mut capsule = Capsule::new();
    let meta = Meta { codename: "amber".into(), label: "Claude".into(), agent: Some("claude".into()), provider: None };
    let record = Record { id: FIRST, meta, started_at: 0, ended: None };
    capsule.step(Input::Adopted { record, size: Size { rows: 48, cols: 200 }, replay: b"seen", history: None });
    capsule.step(Input::Ready { initial: "claude", kept: Some(&kept) });
    // A session that is begun unseen changes nobody's size.
    capsule.ask_for_shell();
    assert_eq!(capsule.mux.live[&FIRST].screen.size(), Size { rows: 48, cols: 200 });
    assert!(written(&capsule.output(FIRST, b"\x1b]11;?\x1b\\"), FIRST).starts_with(b"\x1b]11;rgb:ffff/ffff/ffff"));
}

#[test]
fn an_unknown_session_is_said_to_be_unknown() {
    let mut capsule = Capsule::attached();
    for request in [
        Request::SessionRead { session_id: Some(9), history: None },
        Request::SessionClose { session_id: 9 },
        Request::StatusCapture { session_id: 9 },
        Request::SessionStatusExplain { session_id: 9 },
        Request::Record { session_id: 9, on: true },
    ] {
        assert!(matches!(capsule.ask(request.clone()), Some(Reply::Error { message }) if message.contains('9')), "{request:?}");
    }
}

#[test]
fn the_picture_holds_at_every_size() {
    let mut capsule = Capsule::attached();
    capsule.new_session(b"\x1c%s", SECOND);
    for (rows, cols) in [(6, 3), (7, 19), (8, 20), (24, 80), (200, 500), (500, 200), (6, 500)] {
        capsule.step(Input::Frame { client: ONE, frame: ClientFrame::Resize { rows, cols } });
        capsule.step(Input::Drained(ONE));
        for keys in ["\x1c", "\x1b", "\x1cu", "\x1b", "\x11", "\x1b"] {
            capsule.now += FRAME;
            capsule.types(ONE, keys.as_bytes());
            capsule.now += 60;
            capsule.step(Input::Tick);
            capsule.step(Input::Drained(ONE));
            assert_eq!(capsule.mux.picture.size(), Size { rows, cols });
        }
        assert!(capsule.mux.overlay.is_none());
    }
}

#[test]
fn a_spare_begins_when_the_launch_file_lets_it() {
    let mut capsule = Capsule::new();
    capsule.mux.settings.config.hold = true;
    let effects = capsule.step(Input::Ready { initial: "claude", kept: None });
    assert!(effects.iter().all(|effect| matches!(effect, Effect::WakeAt(Some(_)))), "{effects:?}");
    assert_eq!(capsule.ask(Request::Status), Some(Reply::SessionList { sessions: Vec::new() }));
    let effects = capsule.attach(ONE, AttachMode::Takeover, 24, 80);
    assert!(matches!(told(&effects, ONE), Some(ShutdownReason::Other(why)) if why.contains("spare")), "{effects:?}");
    let spawn = Request::SessionSpawn { agent: None, provider: None, cwd: None };
    assert!(matches!(capsule.ask(spawn), Some(Reply::Error { .. })));

    // It looks by itself, and when it is asked to.
    let looks = |effects: &[Effect]| effects.iter().filter(|e| matches!(e, Effect::LookAtHold(_))).count();
    for _ in 0..3 {
        assert_eq!(looks(&capsule.later(HOLD, Input::Tick)), 1);
        assert_eq!(looks(&capsule.step(Input::Tick)), 0);
    }
    let asked = capsule.step(Input::Asked { client: ASKER, request: Request::Release, ctx: Ctx::default() });
    assert!(asked.contains(&Effect::LookAtHold(Some(ASKER))), "{asked:?}");

    let config = LaunchConfig { hold: false, workdir: "/elsewhere".into(), ..capsule.mux.settings.config.clone() };
    let effects = capsule.step(Input::Released { config, initial: "claude".to_owned() });
    assert!(effects.iter().any(|e| matches!(e, Effect::Spawn { session: FIRST, .. })), "{effects:?}");
    assert_eq!(capsule.mux.settings.config.workdir, "/elsewhere");
    capsule.step(Input::Spawned { session: FIRST, started_at: 0, history: None });
    assert_eq!(capsule.ask(Request::Release), Some(Reply::Ack), "and only once");
    assert_eq!(looks(&capsule.later(HOLD, Input::Tick)), 0);
    assert!(told(&capsule.attach(ONE, AttachMode::Takeover, 24, 80), ONE).is_none());
}

#[test]
fn a_mux_that_comes_back_to_sessions_holds_none_of_them() {
    let mut capsule = Capsule::new();
    capsule.mux.settings.config.hold = true;
    let record = Record {
        id: FIRST,
        meta: Meta { codename: "amber".into(), label: "Claude".into(), agent: None, provider: None },
        started_at: 1,
        ended: None,
    };
    capsule.step(Input::Adopted { record, size: Size { rows: 24, cols: 80 }, replay: b"", history: None });
    capsule.step(Input::Ready { initial: "claude", kept: None });
    assert_eq!(capsule.ask(Request::Release), Some(Reply::Ack));
}
