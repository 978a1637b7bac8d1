//! Listening (LISTEN, NOTIFY) without a server connection of one's own: where a session's channels are, and how they move.
//!
//! LISTEN and UNLISTEN run on the lent server connection, in the client's transaction. Once nothing else pins the session,
//! its channels move to the hub, one connection that listens for all clients of a database, and come back before a statement
//! that touches what is listened to. At each move a marker is sent through the server's queue of notifications, which has
//! one order for all listeners: what comes before it is delivered by one side, what comes after it by the other.

use bytes::Bytes;

use std::sync::Arc;

use super::{
    ClientStep, Judge, Need, Outboxes, Pipeline, ServerState, ServerStep, Session, Shown,
    ask::{Lent, ask_ours},
    carried::Probe,
    client::{JUDGED_BYTES_MAX, NamesParsed, Said},
    owed::Owed,
};
use crate::{
    sql::{Fact, NameUse, SettingChange, TransactionControl, Verdict},
    wire::{
        self, ErrorFields,
        error::{Report, SqlState},
        frame::{self, ClientMessage},
        reply::{self, Status},
        request::{self, BindNames, Object, Parse},
    },
};

/// A channel's name, in the client's encoding.
pub type Channel = Box<[u8]>;

/// Most bytes of notifications that are kept back while channels move to the server connection.
const LATE_BYTES_MAX: usize = 1 << 20;

/// How often the end of listening on a server connection is tried, should it be cancelled.
const TRIES_MAX: u32 = 3;

/// What the frontend has to do at the hub for a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Errand {
    /// Listen to exactly these channels, over a connection with this encoding, and answer with [`Mail::Listening`].
    /// With `deliver` what comes from then on is delivered; else after the marker.
    Subscribe { channels: Arc<[Channel]>, encoding: Box<str>, version: u32, deliver: bool },
    /// The session listens to nothing any more.
    Leave,
}

/// Whether a notification may be delivered to the client now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Its outbox is full.
    Full,
    /// It may stand among answers only: something of the client is under way.
    Busy,
    /// It disturbs nothing.
    Quiet,
}

/// What the hub tells a session, in the order in which it happened.
#[derive(Debug, PartialEq, Eq)]
pub enum Mail {
    /// A whole NotificationResponse message, which all who hear it share.
    Notification(Bytes),
    /// The marker of this move to the hub has come: what follows it is delivered by the hub.
    Started(u32),
    /// The marker of this move to the server connection has come: what follows it is not delivered by the hub.
    Ended(u32),
    /// The hub's connection is gone; what is sent until it listens again is missed.
    Lost,
    /// The hub listens on this node, for this version of the subscription.
    Listening { version: u32, node: u16 },
}

/// Where the hub is reached by markers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubAddress {
    /// The channel of markers. A plain lower-case name.
    pub marker: Arc<str>,
    /// Who the subscriber is, in a marker's payload.
    pub subscriber: u64,
}

/// Reads a marker's payload: the subscriber, the number of its move, and whether it moves to the hub.
pub fn read_marker(payload: &[u8]) -> Option<(u64, u32, bool)> {
    let mut words = std::str::from_utf8(payload).ok()?.split(' ');
    let subscriber = words.next()?.parse().ok()?;
    let number = words.next()?.parse().ok()?;
    let to_hub = match (words.next()?, words.next()) {
        ("hub", None) => true,
        ("server", None) => false,
        _ => return None,
    };
    Some((subscriber, number, to_hub))
}

/// A step of a move, owed by the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// The marker of a move to the hub.
    Mark,
    /// UNLISTEN on the server connection, after that marker.
    Unlisten,
    /// LISTEN on the server connection, with the marker of the move.
    Listen,
    /// UNLISTEN of the channel of markers.
    Unmark,
}

/// Who delivers the session's notifications.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deliverer {
    /// The server connection, which stays lent.
    Server,
    /// Moving to the hub.
    Leaving {
        /// The server connection has delivered all that comes before the marker.
        server_passed: bool,
    },
    Hub,
    /// Moving to the server connection: who has passed the marker, and whether markers are listened to no longer.
    Returning {
        server_passed: bool,
        hub_passed: bool,
        unmarked: bool,
    },
}

/// What a session that listens keeps.
#[derive(Debug)]
pub(super) struct Listening {
    place: Deliverer,
    /// As the server named them last, sorted.
    channels: Arc<[Channel]>,
    encoding: Box<str>,
    /// Of the subscription that was asked for last.
    version: u32,
    errand: Option<Errand>,
    address: Option<HubAddress>,
    /// The node on which the hub listens for this version.
    hub_node: Option<u16>,
    /// Notifications may have been missed, and the client has not been told.
    gap: bool,
    /// The channels were brought for a message that has not been shown again yet.
    awaited: bool,
    /// The hub was lost while the marker of a move to it was under way.
    lost_on_the_way: bool,
    /// A move to the hub has failed: none is tried before the channels change.
    stays: bool,
    moves: u32,
    /// The last move to the hub, and whether the hub has passed its marker: what comes before it is not for the hub to
    /// deliver.
    move_to_hub: u32,
    hub_started: bool,
    /// The hub delivers from the moment that it listens, without a marker.
    deliver: bool,
    tries: u32,
    /// Came from the server after the marker, before the hub has delivered all that came before it.
    late: Vec<u8>,
    /// Why the channels could not be brought to the server connection.
    refused: Option<ErrorFields>,
}

impl Listening {
    fn new(channels: Arc<[Channel]>, encoding: Box<str>) -> Listening {
        let mut listening = Listening {
            place: Deliverer::Server,
            channels,
            encoding,
            version: 0,
            errand: None,
            address: None,
            hub_node: None,
            gap: false,
            awaited: false,
            lost_on_the_way: false,
            stays: false,
            moves: 0,
            move_to_hub: 0,
            hub_started: false,
            deliver: false,
            tries: 0,
            late: Vec::new(),
            refused: None,
        };
        listening.subscribe(false);
        listening
    }

    fn subscribe(&mut self, deliver: bool) {
        self.version += 1;
        self.hub_node = None;
        self.stays = false;
        self.deliver = deliver;
        let (channels, encoding) = (self.channels.clone(), self.encoding.clone());
        self.errand = Some(Errand::Subscribe { channels, encoding, version: self.version, deliver });
    }

    /// Whether the server connection cannot be lent to others, since it listens.
    fn holds_server(&self) -> bool {
        self.place != Deliverer::Hub && !self.channels.is_empty()
    }

    /// The query that sends a marker through the queue of notifications; limits and durability of the client's own do not
    /// matter for it.
    fn marker_query(&mut self, to_hub: bool) -> Option<Vec<u8>> {
        let HubAddress { marker, subscriber } = self.address.as_ref()?;
        self.moves = self.moves.wrapping_add(1);
        self.tries = 0;
        let mut sql = b"SET LOCAL statement_timeout TO 0;SET LOCAL lock_timeout TO 0;\
            SET LOCAL synchronous_commit TO off;"
            .to_vec();
        if !to_hub {
            listen_to(&self.channels, &mut sql);
        }
        let (moves, place) = (self.moves, if to_hub { "hub" } else { "server" });
        sql.extend_from_slice(format!("LISTEN {marker};NOTIFY {marker},'{subscriber} {moves} {place}'").as_bytes());
        Some(sql)
    }

    /// Whether a notification is a marker, and whether it is that of the move under way: while one session moves, it
    /// hears the markers of all others.
    fn marker(&self, body: &[u8]) -> Option<bool> {
        let HubAddress { marker, subscriber } = self.address.as_ref()?;
        let parts = reply::notification_parts(body).ok()?;
        let mine = |(who, number, _)| who == *subscriber && number == self.moves;
        (*parts.channel == *marker.as_bytes()).then(|| read_marker(parts.payload).is_some_and(mine))
    }

    fn on_notification(&mut self, body: &[u8]) -> ServerStep {
        let marker = self.marker(body);
        match &mut self.place {
            Deliverer::Leaving { server_passed } | Deliverer::Returning { server_passed, .. }
                if marker == Some(true) =>
            {
                *server_passed = true;
                ServerStep::Swallow
            }
            _ if marker.is_some() => ServerStep::Swallow,
            Deliverer::Server | Deliverer::Hub | Deliverer::Leaving { server_passed: false } => ServerStep::Forward,
            Deliverer::Leaving { server_passed: true } | Deliverer::Returning { server_passed: false, .. } => {
                ServerStep::Swallow
            }
            Deliverer::Returning { .. } if self.late.len() + body.len() > LATE_BYTES_MAX => {
                ServerStep::fail(overflow())
            }
            Deliverer::Returning { .. } => {
                request::begin(b'A', body.len(), &mut self.late);
                self.late.extend_from_slice(body);
                ServerStep::Swallow
            }
        }
    }

    /// The move to the server connection is complete once both sides have passed the marker.
    fn finish_return(&mut self, pipeline: &mut Pipeline, to_client: &mut Vec<u8>) {
        if self.place == (Deliverer::Returning { server_passed: true, hub_passed: true, unmarked: true }) {
            self.place = Deliverer::Server;
            self.awaited = true;
            self.hub_started = false;
            pipeline.owed.end_move();
            self.tell_gap(to_client);
            to_client.append(&mut self.late);
            self.late = Vec::new();
        }
    }

    fn tell_gap(&mut self, to_client: &mut Vec<u8>) {
        if std::mem::take(&mut self.gap) {
            Report::error(
                SqlState::WARNING,
                "the server connection that listens was lost; notifications may be missing",
            )
            .detail("It listens again. What was sent meanwhile has not been delivered.")
            .write_notice("WARNING", to_client);
        }
    }

    /// The hub's connection is gone.
    fn lose_hub(&mut self, pipeline: &mut Pipeline, to_client: &mut Vec<u8>) {
        self.hub_node = None;
        match &mut self.place {
            Deliverer::Server => {}
            Deliverer::Hub if self.hub_started => self.gap = true,
            // Nobody can tell whether the hub listened again before the marker was sent, or has missed it.
            Deliverer::Hub => {
                self.gap = true;
                self.subscribe(true);
            }
            Deliverer::Leaving { .. } => self.lost_on_the_way = true,
            Deliverer::Returning { hub_passed, .. } => {
                self.gap |= !*hub_passed;
                *hub_passed = true;
                self.finish_return(pipeline, to_client);
            }
        }
    }
}

/// The words for a client that does not read its notifications.
pub fn overflow() -> Report {
    Report::fatal(SqlState::LIMIT_EXCEEDED, "terminating connection because too many notifications wait to be read")
        .hint("The client must read its notifications; at most 1 MiB of them is kept for it.")
}

/// LISTEN for each of the channels.
pub fn listen_to(channels: &[Channel], sql: &mut Vec<u8>) {
    for channel in channels {
        sql.extend_from_slice(b"LISTEN ");
        push_quoted(channel, sql);
        sql.push(b';');
    }
}

/// UNLISTEN of one channel.
pub fn unlisten(channel: &[u8], sql: &mut Vec<u8>) {
    sql.extend_from_slice(b"UNLISTEN ");
    push_quoted(channel, sql);
    sql.push(b';');
}

/// A quoted name. No encoding that PostgreSQL knows has the quote within a longer character.
fn push_quoted(name: &[u8], sql: &mut Vec<u8>) {
    sql.push(b'"');
    for byte in name {
        sql.extend_from_slice(if *byte == b'"' { b"\"\"" } else { std::slice::from_ref(byte) });
    }
    sql.push(b'"');
}

/// Whether a statement has to find the session's channels on its server connection. In a transaction any statement may
/// follow that does, and channels cannot be brought there then, so it is the beginning of each that counts.
fn touches(verdict: &Verdict) -> bool {
    let encodes = |change: &SettingChange| match change {
        SettingChange::Set(name) | SettingChange::Reset(name) => **name == *"client_encoding",
        SettingChange::ResetAll | SettingChange::Unknown => true,
    };
    // What EXECUTE runs is not seen in its own text.
    let executes = |name: &NameUse| !matches!(name, NameUse::Deallocates(_));
    verdict.does(Fact::Listens)
        || verdict.is_opaque()
        || verdict.names.iter().any(executes)
        || verdict.does(Fact::DiscardsAll)
        || matches!(verdict.transaction, TransactionControl::Begin { .. } | TransactionControl::Mixed)
        || verdict.settings.iter().any(encodes)
}

impl Session {
    /// Whether the session listens to anything, here or at the hub.
    #[inline]
    pub fn listens(&self) -> bool {
        self.listen.is_some()
    }

    pub(super) fn listens_on_server(&self) -> bool {
        self.listen.as_ref().is_some_and(|listening| listening.holds_server())
    }

    /// What has to be done at the hub now, once.
    pub fn errand(&mut self) -> Option<Errand> {
        let errand = self.listen.as_mut()?.errand.take();
        if errand == Some(Errand::Leave) {
            self.listen = None;
        }
        errand
    }

    /// Where markers have to be sent from now on, after [`Errand::Subscribe`].
    pub fn set_hub(&mut self, address: HubAddress) {
        if let Some(listening) = &mut self.listen {
            listening.address = Some(address);
        }
    }

    /// Takes in what the hub tells; what cannot be taken yet is given back, to be shown again.
    ///
    pub fn on_mail(
        &mut self,
        mail: Mail,
        delivery: Delivery,
        pipeline: &mut Pipeline,
        to_client: &mut Vec<u8>,
    ) -> Option<Mail> {
        let listening = self.listen.as_mut()?;
        match (mail, &mut listening.place) {
            // The server connection delivers them, or has.
            (Mail::Notification(_), _) if !listening.hub_started => {}
            (Mail::Notification(bytes), Deliverer::Hub) if delivery == Delivery::Quiet => {
                to_client.extend_from_slice(&bytes)
            }
            (Mail::Notification(bytes), Deliverer::Returning { hub_passed: false, .. })
                if delivery != Delivery::Full =>
            {
                to_client.extend_from_slice(&bytes);
            }
            // After the end of what is before the marker they are the server connection's.
            (Mail::Notification(_), Deliverer::Returning { hub_passed: true, .. }) => {}
            (mail @ Mail::Notification(_), _) => return Some(mail),
            (Mail::Started(number), place) => {
                listening.hub_started |= number == listening.move_to_hub && *place != Deliverer::Server;
            }
            (Mail::Ended(number), Deliverer::Returning { hub_passed, .. }) if number == listening.moves => {
                *hub_passed = true;
                listening.finish_return(pipeline, to_client);
            }
            (Mail::Ended(_), _) => {}
            (Mail::Lost, _) => listening.lose_hub(pipeline, to_client),
            (mail @ Mail::Listening { .. }, Deliverer::Leaving { .. }) if listening.gap => return Some(mail),
            (mail @ Mail::Listening { .. }, Deliverer::Hub) if listening.gap && delivery != Delivery::Quiet => {
                return Some(mail);
            }
            (Mail::Listening { version, node }, place) => {
                let in_hub = *place == Deliverer::Hub;
                if version != listening.version {
                    return None;
                }
                listening.hub_node = Some(node);
                listening.hub_started |= std::mem::take(&mut listening.deliver) && *place != Deliverer::Server;
                if in_hub {
                    listening.tell_gap(to_client);
                }
            }
        }
        None
    }

    /// A notification from the lent server connection.
    pub(super) fn on_notification(&mut self, body: &[u8]) -> ServerStep {
        match &mut self.listen {
            Some(listening) => listening.on_notification(body),
            // While we still ask whether LISTEN has succeeded.
            None => ServerStep::Forward,
        }
    }

    /// What the server has answered to the question of channels, after a transaction that may have changed them.
    pub(super) fn set_channels(&mut self, mut channels: Vec<Channel>) {
        channels.sort_unstable();
        match &mut self.listen {
            None if channels.is_empty() => {}
            None => self.listen = Some(Box::new(Listening::new(channels.into(), self.reported.encoding()))),
            // Code that was not seen has listened on a connection that did not: it stays with this session.
            Some(listening) if listening.place == Deliverer::Hub => {
                if !channels.is_empty() {
                    self.pins.keep();
                }
            }
            Some(listening) => {
                let changed = *listening.channels != *channels || listening.errand == Some(Errand::Leave);
                listening.channels = channels.into();
                if listening.channels.is_empty() {
                    listening.errand = Some(Errand::Leave);
                } else if changed {
                    listening.subscribe(false);
                }
            }
        }
    }

    /// The client's encoding may be another than when the session began to listen.
    pub(super) fn check_encoding(&mut self) {
        let Some(listening) = &mut self.listen else { return };
        let encoding = self.reported.encoding();
        if listening.encoding != encoding && !listening.channels.is_empty() {
            listening.encoding = encoding;
            listening.subscribe(false);
        }
    }

    /// Begins to move the channels to the hub, when that is possible now. True when it has begun.
    pub fn hand_over(&mut self, pipeline: &mut Pipeline, server: &mut ServerState, out: &mut Outboxes<'_>) -> bool {
        let pinned = self.is_pinned_otherwise();
        let Some(listening) = &mut self.listen else { return false };
        let at_hub = listening.hub_node == Some(server.node) && listening.errand.is_none();
        if listening.place != Deliverer::Server || pinned || listening.awaited || listening.stays || !at_hub {
            return false;
        }
        let idle = pipeline.owed.is_quiet() && !pipeline.owed.is_holding() && pipeline.effects.probe == Probe::Nothing;
        let Some(sql) = (if idle { listening.marker_query(true) } else { None }) else { return false };
        listening.place = Deliverer::Leaving { server_passed: false };
        (listening.move_to_hub, listening.hub_started) = (listening.moves, false);
        ask_ours(&sql, Owed::Move { step: Move::Mark }, pipeline, server, out);
        true
    }

    /// Before a message that needs the channels on the server connection they are brought there. `None`: it goes on.
    pub(super) fn bring_back(
        &mut self,
        said: &Said<'_, impl Judge>,
        pipeline: &mut Pipeline,
        server: Option<&mut ServerState>,
        out: &mut Outboxes<'_>,
    ) -> Option<ClientStep> {
        let Said { request, shown: message, judge, .. } = *said;
        let listening = self.listen.as_mut()?;
        listening.awaited = false;
        if listening.place != Deliverer::Hub || !self.message_touches(request, message, pipeline, judge) {
            return None;
        }
        let Some(server) = server else { return Some(ClientStep::NeedServer(Need::Write)) };
        // Settings that are being replayed, too: their end must not be taken for that of the move.
        if !pipeline.owed.is_empty() {
            return Some(ClientStep::Hold);
        }
        let listening = self.listen.as_mut()?;
        if pipeline.is_read_only() || pipeline.owed.status() != Status::Idle {
            return None;
        }
        let sql = listening.marker_query(false)?;
        let marker = listening.address.as_ref()?.marker.clone();
        let hub_passed = listening.hub_node != Some(server.node);
        listening.gap |= hub_passed;
        listening.place = Deliverer::Returning { server_passed: false, hub_passed, unmarked: false };
        ask_ours(&sql, Owed::Move { step: Move::Listen }, pipeline, server, out);
        let mut sql = Vec::new();
        unlisten(marker.as_bytes(), &mut sql);
        ask_ours(&sql, Owed::Move { step: Move::Unmark }, pipeline, server, out);
        Some(ClientStep::Hold)
    }

    fn message_touches(
        &self,
        request: ClientMessage,
        message: Shown<'_>,
        pipeline: &Pipeline,
        judge: &impl Judge,
    ) -> bool {
        if pipeline.owed.has_open_batch() {
            return false;
        }
        match request {
            ClientMessage::FunctionCall => true,
            ClientMessage::Query if message.is_whole() => {
                request::query_text(message.body).is_ok_and(|sql| touches(&judge.verdict(sql)))
            }
            // A shorter one is shown again when it is there.
            ClientMessage::Query | ClientMessage::Parse if !message.is_whole() => message.head.body > JUDGED_BYTES_MAX,
            ClientMessage::Describe | ClientMessage::Close if !message.is_whole() => false,
            ClientMessage::Parse
            | ClientMessage::Bind
            | ClientMessage::Describe
            | ClientMessage::Close
            | ClientMessage::Execute => self.batch_touches(request, message, pipeline, judge),
            _ => false,
        }
    }

    /// Whether anything in a batch of the extended protocol touches the channels; one that is not all there may.
    fn batch_touches(
        &self,
        mut request: ClientMessage,
        message: Shown<'_>,
        pipeline: &Pipeline,
        judge: &impl Judge,
    ) -> bool {
        if !message.is_whole() {
            return true;
        }
        let (mut body, mut after) = (message.body, message.after);
        let mut parsed = NamesParsed::default();
        loop {
            let touched = match request {
                ClientMessage::Parse => Parse::read(body).is_ok_and(|parse| {
                    parsed.push(parse.name);
                    touches(&self.intern(&parse, judge).verdict)
                }),
                ClientMessage::Bind => BindNames::read(body).is_none_or(|names| {
                    let known = || self.prepared.get(names.statement, &pipeline.owed);
                    !parsed.contains(names.statement) && known().is_none_or(|known| touches(&known.verdict))
                }),
                ClientMessage::Sync => return false,
                ClientMessage::Describe | ClientMessage::Close => Object::read(body).is_err(),
                ClientMessage::Execute | ClientMessage::Flush => false,
                _ => true,
            };
            let next = frame::header(after).ok().flatten();
            let next = next.filter(|head| after.len() >= head.message());
            let Some(head) = next.filter(|_| !touched) else { return true };
            let Ok(kind) = ClientMessage::of(head) else { return true };
            request = kind;
            (body, after) = (&after[frame::HEADER_BYTES..head.message()], &after[head.message()..]);
        }
    }

    /// The server has answered a query of a move.
    pub(super) fn on_moved(&mut self, step: Move, failed: bool, lent: &mut Lent<'_, '_>) -> ServerStep {
        let Lent { pipeline, server, out } = lent;
        let words = pipeline.take(|seldom| &mut seldom.last_words);
        let Some(listening) = &mut self.listen else { return out_of_step() };
        match (step, listening.place) {
            (Move::Mark, Deliverer::Leaving { server_passed: true }) if !failed => {
                ask_ours(b"UNLISTEN *", Owed::Move { step: Move::Unlisten }, pipeline, server, out);
                ServerStep::Swallow
            }
            (Move::Mark, Deliverer::Leaving { .. }) if failed => {
                listening.place = Deliverer::Server;
                (listening.stays, listening.lost_on_the_way) = (true, false);
                pipeline.owed.end_move();
                ServerStep::Swallow
            }
            (Move::Unlisten, Deliverer::Leaving { .. }) if !failed => {
                listening.place = Deliverer::Hub;
                if std::mem::take(&mut listening.lost_on_the_way) {
                    listening.gap = true;
                    listening.subscribe(true);
                }
                pipeline.owed.end_move();
                if self.is_pinned() { ServerStep::Swallow } else { ServerStep::Release }
            }
            (Move::Listen, Deliverer::Returning { server_passed: true, .. }) if !failed => ServerStep::Swallow,
            (Move::Listen, Deliverer::Returning { .. }) if failed => {
                listening.place = Deliverer::Hub;
                listening.refused = Some(words.unwrap_or_default());
                ServerStep::Swallow
            }
            (Move::Unmark, Deliverer::Hub) => self.refuse_return(pipeline),
            (Move::Unmark, Deliverer::Returning { server_passed, hub_passed, .. }) if !failed => {
                listening.place = Deliverer::Returning { server_passed, hub_passed, unmarked: true };
                listening.finish_return(pipeline, out.to_client);
                ServerStep::Swallow
            }
            (Move::Unlisten | Move::Unmark, _) if failed && listening.tries < TRIES_MAX => {
                listening.tries += 1;
                let mut sql = b"UNLISTEN *".to_vec();
                if let (Move::Unmark, Some(address)) = (step, &listening.address) {
                    sql.clear();
                    unlisten(address.marker.as_bytes(), &mut sql);
                }
                ask_ours(&sql, Owed::Move { step }, pipeline, server, out);
                ServerStep::Swallow
            }
            _ => out_of_step(),
        }
    }

    /// The channels could not be brought to the server connection: the statement that needs them there gets the error.
    fn refuse_return(&mut self, pipeline: &mut Pipeline) -> ServerStep {
        pipeline.owed.end_move();
        let words = self.listen.as_mut().and_then(|listening| listening.refused.take()).unwrap_or_default();
        let report = match words.code() {
            "57014" => Report::error(SqlState::QUERY_CANCELED, words.message()),
            code => Report::error(SqlState::CONNECTION_LOST, "cannot listen on this server connection")
                .detail(format!("The server said: {} (SQLSTATE {code}).", words.message())),
        };
        self.lost = Some(Box::new(report));
        if self.is_pinned() { ServerStep::Swallow } else { ServerStep::Release }
    }

    /// Whether the server connection listens, and no hub has been asked yet.
    pub(super) fn listens_here_only(&self) -> bool {
        self.listen.as_ref().is_some_and(|listening| listening.holds_server() && listening.address.is_none())
    }

    /// The server connection was lost. What it listened to, the hub listens to from now on.
    pub(super) fn lose_listening_server(&mut self) {
        let Some(listening) = &mut self.listen else { return };
        if listening.holds_server() {
            listening.place = Deliverer::Hub;
            (listening.gap, listening.lost_on_the_way) = (true, false);
            listening.late = Vec::new();
            listening.subscribe(true);
        }
    }
}

fn out_of_step() -> ServerStep {
    ServerStep::fail(
        Report::fatal(SqlState::CONNECTION_LOST, "the session's channels could not be moved to another connection")
            .detail(wire::Error::Malformed("NotificationResponse").to_string()),
    )
}
