//! How clients leave: by themselves, by an order, by a limit or with an error; and what becomes of their server
//! connections.

use std::{future::poll_fn, time::Duration};

use tokio::time::{Instant, timeout, timeout_at};

use super::{
    super::{
        exchange::ExchangeEvent,
        lending::cancels_done,
        limits::{CANCEL_LIMIT, ClientLimit},
    },
    Client,
};
use crate::{
    backend::{self, Mess},
    clients::{ClientPlace, LeaveOrder},
    frontend::errors::{self, ErrorWords},
    net::Stream,
};
use poolhouse_core::{
    session::Mode,
    wire::{error::Report, reply::Status},
};

/// How long a client that has left may keep its server connection to end what it had asked for, or to read more of the
/// answer.
const DESERTED_LIMIT: Duration = Duration::from_secs(5);

/// How long what only reads goes on for a client that has left: one that has only ended what it sends waits for the
/// answer, and nobody can tell the two apart before something is written.
const READS_LIMIT: Duration = Duration::from_secs(1);

/// How long the last message to a client may take to be written.
const FAREWELL_LIMIT: Duration = Duration::from_secs(2);

impl Client {
    /// The client has left. What it had asked for is done, as on a direct connection; then its server connection is
    /// cleaned, or closed.
    pub(super) async fn desert(mut self: Box<Self>) {
        if self.lent.is_none() {
            // What Poolhouse has answered itself.
            return self.flush().await;
        }
        if !self.finish().await {
            if self.exchange.as_ref().is_some_and(|exchange| !exchange.pipeline.effects.may_commit) {
                // It would go on without a client, for as long as it takes, and nothing would come of it.
                self.cancel_statement().await;
            }
            self.tell_undone();
            return self.abandon();
        }
        let told = self.exchange.as_mut().is_some_and(|exchange| exchange.has_told());
        self.clean().await;
        if told {
            self.part().await;
        }
    }

    /// What a client had asked for before it left comes to no end.
    fn tell_undone(&self) {
        let (client, process, held) = (self.stream.peer(), self.entry.slot.process, self.lent.is_some());
        let waits_for = self.exchange.as_ref().map(|exchange| exchange.pipeline.owed.waits_for()).unwrap_or_default();
        tracing::info!(client, process, held, waits_for, "what a client had asked for before it left was broken off");
    }

    /// Does what the client has said before it left, answers it, and lets the server come to rest after it. False when
    /// that takes too long, or cannot be.
    async fn finish(&mut self) -> bool {
        let Some(exchange) = &mut self.exchange else { return true };
        let mut only_reads = exchange.is_idle_talk();
        exchange.desert();
        let mut limit = Instant::now() + if only_reads { READS_LIMIT } else { DESERTED_LIMIT };
        loop {
            match timeout_at(limit, self.finish_all()).await {
                Ok(done) => return done,
                Err(_) => {
                    let Some(exchange) = &mut self.exchange else { return true };
                    if exchange.has_told() {
                        // It hears, as slowly as it may.
                    } else if exchange.is_telling() {
                        exchange.stop_telling();
                    } else if std::mem::take(&mut only_reads) {
                        // Others may wait for the connection.
                        self.cancel_statement().await;
                    } else {
                        return false;
                    }
                    limit = Instant::now() + DESERTED_LIMIT;
                }
            }
        }
    }

    /// Cancel-safe but for the end of a server connection that is given back: that is waited for.
    async fn finish_all(&mut self) -> bool {
        loop {
            match poll_fn(|cx| self.poll_exchange(cx)).await {
                ExchangeEvent::Done | ExchangeEvent::Idle => return true,
                ExchangeEvent::Released if !self.give_back() => self.give_back_late().await,
                ExchangeEvent::NeedServer(need) => {
                    if self.lend(need).await.is_err() {
                        return false;
                    }
                }
                ExchangeEvent::Released | ExchangeEvent::NewDefaults => {}
                ExchangeEvent::ToJudge => self.judge_front().await,
                ExchangeEvent::Refused(why) => self.leave_replica(why),
                ExchangeEvent::Left
                | ExchangeEvent::Failed(_)
                | ExchangeEvent::ServerLost(_)
                | ExchangeEvent::Fenced => return false,
            }
        }
    }

    /// Whether the client holds a server connection, and was gone at the last look already: its end has not been seen, or
    /// nothing has come of it.
    pub(super) fn is_leaking(&mut self) -> bool {
        let gone = self.lent.is_some() && self.stream.has_hung_up();
        let before = std::mem::replace(&mut self.was_gone, gone);
        if !(gone && before) {
            return false;
        }
        let waits_for = self.exchange.as_ref().map(|exchange| exchange.pipeline.owed.waits_for()).unwrap_or_default();
        let (client, process) = (self.stream.peer(), self.entry.slot.process);
        tracing::error!(
            client,
            process,
            waits_for,
            "closed a server connection whose client has gone; this is a bug in Poolhouse"
        );
        self.abandon();
        true
    }

    /// Closes the server connection in the middle of what it does.
    fn abandon(&mut self) {
        let _ = self.entry.slot.detach();
        self.lent = None;
    }

    /// Makes the server connection of a client that is gone fit for others.
    async fn clean(&mut self) {
        if !cancels_done(&self.entry.slot).await {
            return self.abandon();
        }
        let (Some(lent), Some(exchange)) = (self.lent.take(), &mut self.exchange) else { return };
        let pipeline = &exchange.pipeline;
        if !exchange.is_clean() || !pipeline.owed.is_at_rest() || exchange.is_cut() || self.session.is_indelible() {
            return;
        }
        let session =
            self.target.shared.mode == Mode::Session || self.session.is_pinned() || pipeline.effects.is_dirty();
        let mess = Mess { transaction: pipeline.owed.status() != Status::Idle, session };
        let (mut lease, _) = lent;
        if lease.clean(mess).await {
            lease.give_back();
        }
    }

    pub(super) async fn obey(mut self: Box<Self>, order: LeaveOrder) {
        if order.is_at_once() {
            self.cancel_statement().await;
        }
        self.fail(ErrorWords::Ours(errors::ordered(order))).await;
    }

    /// Asks the server to stop what it does for this client.
    pub(super) async fn cancel_statement(&mut self) {
        let canceling = self.lent.as_ref().and_then(|_| self.entry.slot.cancel());
        if let Some(canceling) = canceling {
            backend::cancel(&canceling.server, CANCEL_LIMIT).await;
        }
    }

    pub(super) async fn end_by_limit(mut self: Box<Self>, limit: ClientLimit) {
        let limits = self.target.limits.clone();
        let (lasts, report): (_, fn(Duration) -> Report) = match limit {
            ClientLimit::Query(_) | ClientLimit::Nothing => (limits.query_timeout, errors::query_timeout),
            ClientLimit::IdleTransaction(_) => (limits.idle_transaction_timeout, errors::idle_transaction_timeout),
            ClientLimit::ClientIdle(_) => (limits.client_idle_timeout, errors::client_idle_timeout),
            ClientLimit::Pin(_) => (limits.pin_timeout, errors::pin_timeout),
        };
        // A server connection that idles must not be cancelled: that would hit its cleaning.
        if matches!(limit, ClientLimit::Query(_)) {
            self.cancel_statement().await;
        }
        self.fail(ErrorWords::Ours(report(lasts.unwrap_or_default()))).await;
    }

    /// Tells the client why it is disconnected. A server connection in use is not used again, unless it idles cleanly.
    pub(super) async fn fail(mut self: Box<Self>, words: ErrorWords) {
        if self.exchange.is_none() {
            self.exchange = Some(self.worker.exchange());
        }
        tracing::info!(client = self.stream.peer(), process = self.entry.slot.process, reason = %words,
            "disconnecting a client");
        let (code, message) = words.code_and_message();
        self.entry.note_error(None, code, message);
        if let Some(exchange) = &mut self.exchange
            && !exchange.is_mid_message()
        {
            let before = exchange.client_outbox().len();
            words.write(true, exchange.client_outbox());
            exchange.note_own(before);
        }
        self.flush().await;
        let busy = self.exchange.as_ref().is_some_and(|exchange| !exchange.pipeline.owed.is_empty());
        if busy {
            self.abandon();
        } else {
            self.clean().await;
        }
        self.part().await;
    }

    /// What the client has been told was the last thing. Its socket is closed when it has had the time to read that; others
    /// know it no more.
    pub(super) async fn part(mut self: Box<Self>) {
        let mut stream = std::mem::replace(&mut self.stream, Stream::Gone);
        let mut place = self.place.take();
        place.iter_mut().for_each(ClientPlace::leave);
        drop(self);
        stream.part().await;
        drop(place);
    }

    pub(super) async fn flush(&mut self) {
        // Who waits for the client must not keep others waiting.
        self.kept_back = None;
        let Some(exchange) = &mut self.exchange else { return };
        let stream = &mut self.stream;
        // A client that does not read its last message goes without it.
        let _ = timeout(FAREWELL_LIMIT, poll_fn(|cx| exchange.poll_flush_client(cx, stream))).await;
    }
}
