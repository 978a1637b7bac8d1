//! Plays scripts: several clients, each with a real [`Session`], share model servers, as the frontend would let them.
//! How bytes are chunked and who moves next is up to the caller; invariants of the pool are checked at every release.

use std::{cell::RefCell, collections::HashMap, sync::Arc};

use super::{
    message::{Message, take_messages, tell_reply, tell_request},
    model::Model,
};
use crate::{
    session::{
        AfterLoss, Carried, ClientStep, ClusterNodes, Judge, Loss, Mode, Need, NodeView, OnPin, Outboxes, Pipeline,
        Reported, ServerState, ServerStep, Session, Shared, Shown, Statements,
    },
    sql::{self, Isolation, KnownText},
    wire::{frame::HEADER_BYTES, frame::Reply, header, reply::Status},
};

/// Verdicts, kept from one script to the next: parsing is slow.
#[derive(Debug, Default)]
pub struct Verdicts;

/// Texts whose verdicts are kept.
const VERDICTS_MAX: usize = 1_000;

thread_local! {
    static KNOWN: RefCell<HashMap<Vec<u8>, Arc<KnownText>>> = RefCell::default();
}

impl Judge for Verdicts {
    fn verdict(&self, sql: &[u8]) -> Arc<KnownText> {
        KNOWN.with_borrow_mut(|known| {
            if known.len() > VERDICTS_MAX {
                known.clear();
            }
            known.entry(sql.to_vec()).or_insert_with(|| Arc::new(sql::judge_bytes(sql).into())).clone()
        })
    }

    fn knows(&self, _: &[u8]) -> bool {
        true
    }

    fn nodes(&self, _: Need, _: Option<u64>) -> Vec<NodeView> {
        Vec::new()
    }
}

/// A server connection of the pool.
#[derive(Debug)]
pub struct Server {
    pub model: Model,
    pub state: ServerState,
    lent_to: Option<usize>,
    /// Does not read: replies come late.
    pub stopped: bool,
}

impl Server {
    fn new(read_only: bool) -> Server {
        let mut server =
            Server { model: Model::new(read_only), state: ServerState::default(), lent_to: None, stopped: false };
        for (name, value) in server.model.reported() {
            server.state.take_parameter(format!("{name}\0{value}\0").as_bytes()).expect("well formed");
        }
        server
    }
}

/// One client and what its side of the frontend holds.
#[derive(Debug)]
pub struct Client {
    pub session: Session,
    pub pipeline: Pipeline,
    /// Sent by the client, not used yet.
    inbox: Vec<u8>,
    /// Bytes of its message under way that are still to come, and whether they pass.
    rest: usize,
    passes: bool,
    wants_more: bool,
    held: bool,
    released: bool,
    /// What the session says to the server, while a message of the client is cut in the middle.
    waiting: Vec<u8>,
    from_server: Vec<u8>,
    pub lent: Option<usize>,
    wants: Option<Need>,
    /// All that it has received.
    pub received: Vec<u8>,
    told: usize,
    /// Why it was disconnected.
    pub ended: Option<String>,
    /// It has left: what it had said is done all the same.
    pub left: bool,
}

/// The whole stage.
#[derive(Debug)]
pub struct World {
    pub servers: Vec<Server>,
    pub clients: Vec<Client>,
    pub shared: Arc<Shared>,
    pub verdicts: Verdicts,
    /// What happened, for a transcript.
    pub log: Vec<String>,
    pub lend_next: Option<usize>,
}

impl World {
    /// `replicas` of the servers only read.
    pub fn new(servers: usize, replicas: usize, statements_max: usize, mode: Mode) -> World {
        let statements = Arc::new(Statements::default());
        let names: Vec<String> = (1..=9).map(|at| format!("n{at}")).collect();
        let shared = Shared {
            mode,
            statements_max,
            reads_until_write: false,
            lists: None,
            nodes: Arc::new(ClusterNodes::new(
                names[..if replicas > 0 { 9 } else { 1 }].iter().map(|name| Some(&**name)),
            )),
            statements,
            on_pin: OnPin::Allow,
            code: Arc::default(),
        };
        World {
            servers: (0..servers).map(|at| Server::new(at >= servers - replicas)).collect(),
            clients: Vec::new(),
            shared: Arc::new(shared),
            verdicts: Verdicts,
            log: Vec::new(),
            lend_next: None,
        }
    }

    /// Transactions read on replicas until they write.
    pub fn reading_until_write(mut self) -> World {
        Arc::get_mut(&mut self.shared).expect("nobody has logged in").reads_until_write = true;
        self
    }

    /// A client has logged in with these startup settings.
    pub fn add_client(&mut self, startup: &[(&str, &str)]) -> usize {
        let mut reported = Reported::default();
        for (name, value) in Model::default().reported() {
            reported.set(&name, &value).expect("few");
        }
        let settings = Arc::new(Carried::new(startup.iter().copied()));
        self.clients.push(Client {
            session: Session::new(self.shared.clone(), settings, Arc::new(reported))
                .with_default_isolation(Some(Isolation::ReadCommitted)),
            pipeline: Pipeline::default(),
            inbox: Vec::new(),
            rest: 0,
            passes: false,
            wants_more: false,
            held: false,
            released: false,
            waiting: Vec::new(),
            from_server: Vec::new(),
            lent: None,
            wants: None,
            received: Vec::new(),
            told: 0,
            ended: None,
            left: false,
        });
        self.clients.len() - 1
    }

    fn tell(&mut self, line: String) {
        self.log.push(line);
    }

    /// Bytes of the client arrive.
    pub fn send(&mut self, client: usize, bytes: &[u8]) {
        let party = &mut self.clients[client];
        if party.ended.is_none() && !party.left {
            party.inbox.extend_from_slice(bytes);
            party.wants_more = false;
        }
    }

    pub fn send_message(&mut self, client: usize, message: &Message) {
        let mut bytes = Vec::new();
        message.write(&mut bytes);
        self.send(client, &bytes);
    }

    /// Lets the client's side look at what has come from it. True when something moved.
    pub fn move_client(&mut self, client: usize) -> bool {
        let moved = self.digest_client(client) || self.say_last(client);
        self.finish_release(client);
        self.tell_client(client);
        moved
    }

    /// Lets a server read one message. True when there was one.
    pub fn move_server(&mut self, server: usize) -> bool {
        let at = server;
        let server = &mut self.servers[at];
        if server.stopped || server.model.closed || !server.model.has_input() {
            return false;
        }
        server.model.step();
        let heard = std::mem::take(&mut server.model.heard);
        for (tag, body) in heard {
            self.tell(format!("  S{} > {}", at + 1, tell_request(tag, &body)));
        }
        true
    }

    /// Moves at most `most` bytes of a server's replies to its client. True when something moved.
    pub fn move_replies(&mut self, server: usize, most: usize) -> bool {
        let Some(client) = self.servers[server].lent_to else { return false };
        let bytes = self.servers[server].model.fetch(most);
        if bytes.is_empty() || self.clients[client].released {
            return false;
        }
        self.clients[client].from_server.extend_from_slice(&bytes);
        self.digest_server(client, server);
        self.finish_release(client);
        self.tell_client(client);
        if self.servers[server].model.closed && !self.servers[server].model.has_output() {
            self.lose(server);
        }
        true
    }

    /// A server connection breaks; a new one takes its place.
    pub fn lose(&mut self, server: usize) {
        let read_only = self.servers[server].model.read_only;
        let lost = std::mem::replace(&mut self.servers[server], Server::new(read_only));
        self.tell(format!("  S{} lost", server + 1));
        let Some(client) = lost.lent_to else { return };
        let party = &mut self.clients[client];
        let mid_message = !party.from_server.is_empty() && is_data_of_client(party);
        if party.session.outlives(&party.pipeline) && !mid_message {
            party.session.take_back_block(&party.pipeline);
            return detach(party);
        }
        let mut to_server = Vec::new();
        let mut out = Outboxes { to_server: &mut to_server, to_client: &mut party.received };
        let after =
            party.session.on_loss(Loss { node: "n1", mid_message, alone: false }, &mut party.pipeline, &mut out);
        assert!(to_server.is_empty(), "a lost server is written to");
        if party.released {
            party.released = false;
        }
        detach(party);
        party.passes = false;
        if after == AfterLoss::Ends {
            party.ended = Some("the server was lost".into());
            self.tell(format!("  {} ends", name_of(client)));
        }
        self.tell_client(client);
    }

    /// The client's connection ends. What it has said is done, and what it holds then comes to rest and is cleaned, as the
    /// frontend does.
    pub fn leave(&mut self, client: usize) {
        self.clients[client].left = true;
    }

    /// Says in the place of a client that has left what lets its server come to rest; cleans what has. True when something
    /// moved.
    fn say_last(&mut self, client: usize) -> bool {
        let party = &mut self.clients[client];
        let whole = || header(&party.inbox).is_ok_and(|head| head.is_some()) && !party.wants_more;
        if !party.left || party.ended.is_some() || party.held || party.released || party.wants.is_some() || whole() {
            return false;
        }
        let Some(at) = party.lent else {
            party.ended = Some("it left".into());
            return true;
        };
        let server = &mut self.servers[at];
        let cut = party.rest > 0 && party.passes;
        let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
        let mut out = Outboxes { to_server: &mut to_server, to_client: &mut to_client };
        if !cut && party.pipeline.owed.say_last(&mut out) {
            server.model.receive(&to_server);
            return true;
        }
        if !cut && !party.pipeline.owed.is_empty() {
            return false;
        }
        let fit = !cut && party.pipeline.owed.is_at_rest() && !party.session.is_indelible();
        party.ended = Some("it left".into());
        detach(party);
        let Model { read_only, no_roles, .. } = server.model;
        if fit {
            // What the server still ignores, such as a late Flush, is read first.
            while server.model.has_input() {
                server.model.step();
            }
            assert!(server.model.takes_a_query(), "the cleaning would not be answered: {:?}", server.model);
            server.lent_to = None;
            server.model.clean();
            server.state = Server::new(read_only).state;
        } else {
            *server = Server::new(read_only);
            server.model.no_roles = no_roles;
        }
        self.tell(format!("  S{} {}", at + 1, if fit { "cleaned" } else { "closed" }));
        true
    }

    /// Lets everything move until nothing does.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            let mut moved = false;
            for client in 0..self.clients.len() {
                moved |= self.move_client(client);
            }
            for server in 0..self.servers.len() {
                while self.move_server(server) {
                    moved = true;
                }
                moved |= self.move_replies(server, usize::MAX);
            }
            if !moved {
                return;
            }
        }
        panic!("the conversation never settles");
    }

    /// Whether a client waits for a server connection that others hold.
    pub fn waits(&self, client: usize) -> bool {
        self.clients[client].wants.is_some()
    }

    fn digest_client(&mut self, client: usize) -> bool {
        if let Some(need) = self.clients[client].wants
            && !self.lend(client, need)
        {
            return false;
        }
        let mut moved = false;
        while self.digest_message(client) {
            moved = true;
        }
        moved
    }

    /// Looks at one message of the client. True when it was used up.
    fn digest_message(&mut self, client: usize) -> bool {
        let party = &mut self.clients[client];
        let waits = party.held || party.released || party.wants.is_some() || party.wants_more;
        if party.ended.is_some() || waits && party.rest == 0 {
            return false;
        }
        let mut server = party.lent.map(|server| &mut self.servers[server]);
        if party.rest > 0 {
            let there = party.rest.min(party.inbox.len());
            let bytes: Vec<u8> = party.inbox.drain(..there).collect();
            party.rest -= there;
            if let (true, Some(server)) = (party.passes, &mut server) {
                server.model.receive(&bytes);
                if party.rest == 0 {
                    server.model.receive(&std::mem::take(&mut party.waiting));
                }
            }
            return there > 0;
        }
        let Some(head) = header(&party.inbox).expect("clients of tests frame well") else { return false };
        let end = party.inbox.len().min(head.message());
        let inbox = std::mem::take(&mut party.inbox);
        let shown = Shown { head, body: &inbox[HEADER_BYTES..end], after: &inbox[end..] };
        let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
        let mut out = Outboxes { to_server: &mut to_server, to_client: &mut to_client };
        let state = server.as_deref_mut().map(|server| &mut server.state);
        let step = party.session.on_client(shown, &mut party.pipeline, state, &self.verdicts, &mut out);
        party.inbox = inbox;
        party.received.extend_from_slice(&to_client);
        let (skip, pass) = match step {
            ClientStep::Forward => (0, true),
            ClientStep::Replaced { rest } => (rest, true),
            ClientStep::Answered | ClientStep::Swallow => (end, false),
            _ => (0, false),
        };
        match server {
            Some(server) => {
                server.model.receive(&to_server);
                if pass {
                    server.model.receive(&party.inbox[skip..end]);
                }
            }
            None => assert!(to_server.is_empty() && !pass, "something is sent without a server"),
        }
        self.take_step(client, step, head.message(), end)
    }

    fn take_step(&mut self, client: usize, step: ClientStep, message: usize, end: usize) -> bool {
        let party = &mut self.clients[client];
        match step {
            ClientStep::Forward | ClientStep::Replaced { .. } | ClientStep::Answered | ClientStep::Swallow => {
                party.inbox.drain(..end);
                party.rest = message - end;
                party.passes = matches!(step, ClientStep::Forward | ClientStep::Replaced { .. });
                return true;
            }
            ClientStep::NeedServer(need) => {
                assert!(party.lent.is_none(), "a second server is wanted");
                return self.lend(client, need);
            }
            ClientStep::Hold => {
                party.held = true;
                let waits = party.lent.is_some_and(|server| {
                    let model = &self.servers[server].model;
                    model.has_input() || model.has_output()
                });
                assert!(waits || !party.pipeline.owed.is_empty(), "held, and nothing is owed");
                self.tell(format!("  {} held", name_of(client)));
            }
            ClientStep::More => party.wants_more = true,
            ClientStep::Fail(report) => self.fail(client, &report),
            ClientStep::Bye => self.leave(client),
        }
        false
    }

    fn fail(&mut self, client: usize, report: &crate::wire::error::Report) {
        let party = &mut self.clients[client];
        party.ended = Some(report.message.clone());
        let detail = report.detail.as_ref().map(|detail| format!(" ({detail})")).unwrap_or_default();
        let line = format!("  {} fails: {} {}{detail}", name_of(client), report.code.0, report.message);
        let lent = party.lent.take();
        detach(party);
        if let Some(server) = lent {
            self.servers[server] = Server::new(self.servers[server].model.read_only);
        }
        self.tell(line);
    }

    /// Lends a free server to a client, or lets it wait.
    fn lend(&mut self, client: usize, need: Need) -> bool {
        let fits = |server: &Server| {
            server.lent_to.is_none() && (server.model.read_only == (need != Need::Write) || !self.shared.is_routed())
        };
        let chosen = self.lend_next.filter(|at| fits(&self.servers[*at]));
        let Some(at) = chosen.or_else(|| self.servers.iter().position(fits)) else {
            self.clients[client].wants = Some(need);
            return false;
        };
        self.tell(format!("  S{} lent to {}", at + 1, name_of(client)));
        let (party, server) = (&mut self.clients[client], &mut self.servers[at]);
        party.wants = None;
        party.lent = Some(at);
        server.lent_to = Some(client);
        server.state.node = at as u16;
        let mut to_server = Vec::new();
        let mut out = Outboxes { to_server: &mut to_server, to_client: &mut party.received };
        party.session.attach(&mut party.pipeline, &mut server.state, need, &mut out);
        server.model.receive(&to_server);
        true
    }

    fn digest_server(&mut self, client: usize, at: usize) {
        self.clients[client].held = false;
        while self.clients[client].lent == Some(at) {
            let (party, server) = (&mut self.clients[client], &mut self.servers[at]);
            let Some(head) = header(&party.from_server).expect("the model frames well") else { return };
            if party.from_server.len() < head.message() {
                return;
            }
            let message: Vec<u8> = party.from_server.drain(..head.message()).collect();
            if Reply::is_data(head.tag) && party.pipeline.owed.front_is_clients() {
                party.received.extend_from_slice(&message);
                continue;
            }
            let shown = Shown { head, body: &message[HEADER_BYTES..], after: &party.from_server };
            let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
            let mut out = Outboxes { to_server: &mut to_server, to_client: &mut to_client };
            let step = party.session.on_server(shown, &mut party.pipeline, &mut server.state, &mut out);
            if step == ServerStep::ForwardThenAnswer {
                party.session.answer_after_forward(&mut party.pipeline, &mut out);
            }
            let forward =
                matches!(step, ServerStep::Forward | ServerStep::ForwardThenAnswer | ServerStep::ForwardAndRelease);
            if forward {
                party.received.extend_from_slice(&message);
            }
            party.received.extend_from_slice(&to_client);
            if party.rest > 0 && party.passes {
                party.waiting.append(&mut to_server);
            }
            server.model.receive(&to_server);
            match step {
                ServerStep::ForwardAndRelease | ServerStep::Release => party.released = true,
                ServerStep::Fail(report) => return self.fail(client, &report),
                _ => {}
            }
        }
    }

    /// Gives a server back that the session has let go of, once nothing of the client is on its way to it.
    fn finish_release(&mut self, client: usize) {
        let party = &mut self.clients[client];
        if !party.released || party.rest > 0 && party.passes {
            return;
        }
        let Some(at) = party.lent else { return };
        // What the server still ignores, such as a late Flush, is read first.
        while self.servers[at].model.has_input() {
            self.move_server(at);
        }
        let (party, server) = (&mut self.clients[client], &mut self.servers[at]);
        assert!(party.pipeline.owed.is_empty(), "released while something is owed");
        assert_eq!(party.pipeline.owed.status(), Status::Idle, "released inside a transaction");
        assert!(party.from_server.is_empty(), "released with replies unread");
        assert!(!party.session.is_pinned(), "released though pinned");
        let unfit = party.pipeline.unfit;
        detach(party);
        party.lent = None;
        let (held, bytes) = party.session.statements_held();
        assert!(bytes == 0 || held > 0, "{bytes} bytes of no statement");
        server.lent_to = None;
        if unfit {
            let Model { read_only, no_roles, .. } = server.model;
            *server = Server::new(read_only);
            server.model.no_roles = no_roles;
            return self.tell(format!("  S{} closed", at + 1));
        }
        self.check_free(at);
        self.tell(format!("  S{} free", at + 1));
    }

    /// A free server is clean, and is what is believed of it.
    fn check_free(&mut self, at: usize) {
        let server = &mut self.servers[at];
        assert!(server.model.is_at_rest(), "a free server is busy: {:?}", server.model);
        assert!(server.model.pins.is_empty(), "a free server carries {:?}: {:#?}", server.model.pins, self.log);
        let names: Vec<String> = server.model.statements.keys().filter(|name| !name.is_empty()).cloned().collect();
        assert_eq!(server.state.statements.len(), names.len(), "statements held: {names:?}: {:#?}", self.log);
        let texts = server.model.statements.iter().filter(|(name, _)| !name.is_empty());
        assert!(server.state.statements.bytes() <= texts.map(|(_, sql)| sql.len()).sum(), "bytes of what is not held");
        for name in names {
            let id = name.strip_prefix("__poolhouse_").unwrap_or_else(|| panic!("a client's name is left: {name}"));
            assert!(
                server.state.statements.touch(id.parse().expect("a number")).is_some(),
                "{name} is held unknown to us"
            );
        }
        let believed: Vec<_> = server.state.settings.iter().map(|(a, b)| (a.to_owned(), b.to_owned())).collect();
        let set: Vec<_> = server.model.set_by_session();
        let differs = set.iter().any(|pair| !believed.contains(pair) && !is_default(pair));
        assert!(!differs, "settings are {set:?}, believed {believed:?}: {:#?}", self.log);
        let reported: Vec<_> = server.state.reported.iter().map(|(a, b)| (a.to_owned(), b.to_owned())).collect();
        let mut truly = server.model.reported();
        truly.sort();
        assert_eq!(reported, truly, "what is reported");
    }

    fn tell_client(&mut self, client: usize) {
        let party = &mut self.clients[client];
        let mut new = party.received[party.told..].to_vec();
        let before = new.len();
        let messages = take_messages(&mut new);
        party.told += before - new.len();
        for (tag, body) in messages {
            self.tell(format!("{} < {}", name_of(client), tell_reply(tag, &body)));
        }
    }
}

/// As `SET x TO DEFAULT` would leave it.
fn is_default((name, value): &(String, String)) -> bool {
    let default = Model::default();
    let probe = |settings: Vec<(String, String)>| settings.iter().any(|pair| pair.0 == *name && pair.1 == *value);
    probe(default.reported()) || matches!((name.as_str(), value.as_str()), ("work_mem", "4MB") | ("app.x", ""))
}

fn is_data_of_client(party: &Client) -> bool {
    party.from_server.first().is_some_and(|tag| Reply::is_data(*tag)) && party.pipeline.owed.front_is_clients()
}

fn detach(party: &mut Client) {
    party.pipeline.reset();
    party.from_server.clear();
    party.waiting.clear();
    party.held = false;
    party.released = false;
    party.lent = None;
}

/// How a client is called in a transcript.
pub fn name_of(client: usize) -> char {
    char::from(b'A' + client as u8)
}
