//! Questions over the control channel: answered at once, when something has come true, or as a stream of events.

use crate::agent::{self, RuntimeEvent, View};
use crate::control::{AgentRecord, Event, MAX_MESSAGE, Pane, Reply, Request, ScreenText, SessionState, SessionSummary, Tab};
use crate::dates::rfc3339;
use crate::wire::{Ctx, Spawn};

use super::sessions::{Place, Session, Start, progress_of};
use super::{ClientId, Effect, HELD, Millis, Mux, Record, SessionId};

/// Of text in one answer: as JSON each of its characters may take two.
const MAX_TEXT: usize = (MAX_MESSAGE - (64 << 10)) / 2;

/// A client that wants to hear when a session is in one of these states, or has ended.
pub(super) struct Wait {
    pub client: ClientId,
    pub session: SessionId,
    pub states: Vec<SessionState>,
    pub until: Millis,
}

impl Mux {
    pub(super) fn answer(&mut self, client: ClientId, request: Request, ctx: &Ctx) {
        let reply = match request {
            Request::Status => Reply::SessionList { sessions: self.live.values().map(|session| self.summary(session)).collect() },
            Request::Snapshot => self.snapshot(),
            Request::Agents => self.agents(ctx),
            Request::SessionRead { session_id, history } => self.with(session_id, |session| read(session, history)),
            Request::WaitSessionStatus { session_id, states, timeout_ms } => {
                let wait = Wait { client, session: SessionId(session_id), states, until: self.now.saturating_add(timeout_ms) };
                if !self.live.contains_key(&wait.session) {
                    return self.reply(client, no_such_session(session_id));
                }
                self.waits.push(wait);
                return self.end_waits();
            }
            Request::EventsSubscribe => {
                self.listeners.insert(client);
                let sessions = self.live.values().map(|session| self.summary(session)).collect();
                let reply = Reply::Event { event: Event::Sessions { sessions } };
                return self.effects.push(Effect::Reply { client, reply, last: false });
            }
            Request::SessionStatusExplain { session_id } => {
                let now = self.now;
                self.with(Some(session_id), |session| match serde_json::to_value(session.detector.explain(now)) {
                    Ok(explanation) => Reply::Explained { session_id, explanation },
                    Err(error) => Reply::Error { message: error.to_string() },
                })
            }
            Request::StatusCapture { session_id } => match self.live.get(&SessionId(session_id)) {
                Some(session) => {
                    let rows = session.visible_rows();
                    let progress = session.screen.progress().map(progress_of);
                    let view = View { rows: &rows, title: session.screen.title(), progress };
                    let files = agent::capture_files(&view, &session.detector.explain(self.now));
                    return self.effects.push(Effect::Capture { client, session: session.record.id, files });
                }
                None => no_such_session(session_id),
            },
            Request::ReportRuntimeEvent { session_id, source_id, runtime, event, payload, sequence } => {
                let id = SessionId(session_id);
                let Some(session) = self.live.get_mut(&id) else {
                    return self.reply(client, no_such_session(session_id));
                };
                // Of the payload only the words that decide are kept; the rest may be prompts and secrets.
                let payload = payload.and_then(|payload| serde_json::from_value(payload).ok()).unwrap_or_default();
                let event = RuntimeEvent { session_id, source_id, runtime, event, payload, sequence };
                session.detector.note_event(self.now, &event);
                self.state_may_have_changed(id);
                Reply::Ack
            }
            Request::Record { session_id, on } => match self.live.get(&SessionId(session_id)) {
                Some(session) if session.recording == on => {
                    let how = if on { "recorded already" } else { "not being recorded" };
                    Reply::Error { message: format!("session {session_id} is {how}") }
                }
                Some(session) => {
                    let size = session.screen.size();
                    self.effects.push(Effect::Record { session: SessionId(session_id), on, size });
                    // Answered when it has begun or ended.
                    return self.recording_asked.push((SessionId(session_id), client));
                }
                None => no_such_session(session_id),
            },
            Request::SessionSpawn { .. } if self.held.is_some() => Reply::Error { message: HELD.to_owned() },
            Request::SessionSpawn { agent, provider, cwd } => {
                let spawn = match (agent, provider) {
                    (None, _) => Spawn::Shell,
                    (Some(agent), None) => Spawn::Agent(agent),
                    (Some(agent), Some(provider)) => Spawn::AgentWithProvider { agent, provider },
                };
                let started = self.start(Start { spawn, place: Place::Aside, env: Vec::new(), cwd });
                match started.and_then(|session| self.starting.get_mut(&session)) {
                    // Answered when it has begun, so that its number is of use at once.
                    Some(starting) => return starting.asker = Some(client),
                    None => Reply::Error { message: "nothing was started; multiplexer.log says why".to_owned() },
                }
            }
            Request::SessionClose { session_id } => {
                let id = SessionId(session_id);
                if self.live.contains_key(&id) {
                    self.close([id]);
                    Reply::Ack
                } else {
                    no_such_session(session_id)
                }
            }
            Request::Upgrade { path } => {
                // Answered by the next mux, or by `UpgradeRefused`.
                self.effects.push(Effect::Upgrade { client, path });
                return;
            }
            // Answered when the launch file has been looked at.
            Request::Release if self.held.is_some() => return self.effects.push(Effect::LookAtHold(Some(client))),
            Request::Release => Reply::Ack,
            Request::Version => Reply::Version { version: env!("CARGO_PKG_VERSION").to_owned(), protocol: crate::wire::VERSION },
            Request::Unknown => Reply::Unknown,
        };
        self.reply(client, reply);
    }

    pub(super) fn reply(&mut self, client: ClientId, reply: Reply) {
        self.effects.push(Effect::Reply { client, reply, last: true });
    }

    fn with(&self, id: Option<u64>, answer: impl FnOnce(&Session) -> Reply) -> Reply {
        let id = id.map(SessionId).or(self.layout.focused());
        match id.and_then(|id| self.live.get(&id)) {
            Some(session) => answer(session),
            None => no_such_session(id.map_or(0, |id| id.0)),
        }
    }

    pub(super) fn summary(&self, session: &Session) -> SessionSummary {
        SessionSummary {
            id: session.record.id.0,
            label: session.record.meta.label.clone(),
            agent: session.record.meta.agent.clone(),
            state: session.state(),
            active: Some(session.record.id) == self.layout.focused(),
        }
    }

    fn snapshot(&self) -> Reply {
        let pane = |id: &SessionId| {
            let session = self.live.get(id)?;
            Some(Pane {
                session_id: id.0,
                label: session.record.meta.label.clone(),
                agent: session.record.meta.agent.clone(),
                state: session.state(),
                agent_status_report: serde_json::to_value(session.detector.report()).ok(),
            })
        };
        let tabs = self.layout.tabs().map(|tab| Tab {
            label: self.tab_label(&tab),
            focused_pane: tab.focused.0,
            panes: tab.panes.iter().filter_map(pane).collect(),
        });
        Reply::Snapshot { tabs: tabs.collect(), active_tab: self.layout.active() }
    }

    fn agents(&self, ctx: &Ctx) -> Reply {
        let record = |record: &Record| AgentRecord {
            codename: record.meta.codename.clone(),
            agent: record.meta.agent.clone(),
            provider: record.meta.provider.clone(),
            started_at: rfc3339(record.started_at),
            exited_at: record.ended.map(|ended| rfc3339(ended.at)),
            status: if record.ended.is_some() { "exited" } else { "running" }.to_owned(),
            is_self: ctx.session_id.as_deref() == Some(record.id.to_string().as_str()),
        };
        let all = self.ended.iter().chain(self.live.values().map(|session| &session.record));
        Reply::AgentRegistry { records: all.map(record).collect() }
    }

    // ---- later ----

    /// Answers every wait that has come true or run out.
    pub(super) fn end_waits(&mut self) {
        for wait in std::mem::take(&mut self.waits) {
            let Some(state) = self.live.get(&wait.session).map(Session::state) else {
                self.reply(wait.client, Reply::Error { message: format!("session {} has ended", wait.session) });
                continue;
            };
            let reached = wait.states.contains(&state);
            if reached || self.now >= wait.until {
                self.reply(wait.client, Reply::Waited { session_id: wait.session.0, state, timed_out: !reached });
            } else {
                self.waits.push(wait);
            }
        }
    }

    pub(super) fn tell_listeners(&mut self, event: Event) {
        for client in &self.listeners {
            self.effects.push(Effect::Reply { client: *client, reply: Reply::Event { event: event.clone() }, last: false });
        }
    }

    pub(super) fn close_questions(&mut self) {
        for wait in std::mem::take(&mut self.waits) {
            self.reply(wait.client, Reply::Error { message: format!("session {} has ended", wait.session) });
        }
        for client in std::mem::take(&mut self.listeners) {
            self.effects.push(Effect::Close(client));
        }
    }
}

fn no_such_session(id: u64) -> Reply {
    Reply::Error { message: format!("there is no session {id}") }
}

fn read(session: &Session, history: Option<u64>) -> Reply {
    let (size, (cursor_row, cursor_col)) = (session.screen.size(), session.screen.cursor());
    let text = match history {
        None => session.screen.text(),
        Some(lines) => newest(session.screen.text_with_history(Some(usize::try_from(lines).unwrap_or(usize::MAX))), MAX_TEXT),
    };
    Reply::SessionRead(ScreenText {
        session_id: session.record.id.0,
        rows: size.rows,
        cols: size.cols,
        cursor_row,
        cursor_col,
        title: session.screen.title().to_owned(),
        text,
    })
}

/// Its end, from the beginning of a line on where there is one.
fn newest(mut text: String, limit: usize) -> String {
    let mut from = text.len().saturating_sub(limit);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    if from > 0 {
        from += text[from..].find('\n').map_or(0, |at| at + 1);
    }
    text.split_off(from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_histories_lose_their_beginning() {
        for (limit, left) in [(100, "eins\nzwöi\ndrei"), (14, "zwöi\ndrei"), (10, "drei"), (3, "rei"), (0, "")] {
            assert_eq!(newest("eins\nzwöi\ndrei".to_owned(), limit), left, "{limit}");
        }
        let (title, text) = ("\"".repeat(4096), "\"".repeat(MAX_TEXT));
        let worst = Reply::SessionRead(ScreenText { session_id: 1, rows: 1, cols: 1, cursor_row: 0, cursor_col: 0, title, text });
        assert!(serde_json::to_string(&worst).is_ok_and(|json| json.len() < MAX_MESSAGE));
    }
}
