//! The turns of a client's task: what can be done at once, and what has to be waited for.

use std::{
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use super::{
    super::{
        exchange::ExchangeEvent,
        lending::{Acquired, prove},
        limits::ClientLimit,
    },
    Client, Leave, Wake,
};
use crate::{
    clients::{LeaveOrder, Slot},
    databases::stays,
    frontend::errors::{AcquireError, ErrorWords},
};
use poolhouse_core::{
    session::{AfterLoss, Need},
    wire::error::Report,
};

/// How many calls a task may leave unanswered while it waits for something that has a limit of its own: far more than
/// all of these together take.
const CALLS_MAX: u8 = 24;

/// What a client's task has to wait for, apart from the client's socket, its server's and the pool's queue.
#[derive(Debug)]
enum Aside {
    Lend(Need),
    /// A server connection that has idled for long is asked whether it still works.
    Prove(Acquired, Need),
    /// The long text at the front.
    Judge,
    /// The database's own code is looked at after a rest.
    Look,
    /// A cancel for the server connection is under way.
    GiveBack,
    CancelStatement,
    LoseServer(io::Error),
    /// The client has been told why it is disconnected.
    SayFarewell,
    /// These end it.
    Move(usize),
    Obey(LeaveOrder),
    EndByLimit(ClientLimit),
    Desert,
    Fail(Box<Report>),
}

/// What comes after that.
enum After {
    GoesOn(Box<Client>),
    Leaves(Leave),
}

/// A client being served. By hand: what an `async` function keeps lies in several places, and all of them would have to
/// come into the processor's cache for each turn of the task.
pub struct ClientTask {
    slot: Arc<Slot>,
    client: Option<Box<Client>>,
    aside: Option<Pin<Box<dyn Future<Output = After> + Send>>>,
}

impl Future for ClientTask {
    type Output = Leave;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Leave> {
        let ClientTask { slot, client, aside } = &mut *self;
        if slot.calls() > 0 && answer_call(slot, client, aside.is_some()) {
            // With all that it holds.
            (*client, *aside) = (None, None);
            return Poll::Ready(Leave::Ended);
        }
        loop {
            if let Some(doing) = aside {
                let after = ready!(doing.as_mut().poll(cx));
                *aside = None;
                match after {
                    After::GoesOn(back) => *client = Some(back),
                    After::Leaves(leave) => return Poll::Ready(leave),
                }
            }
            let Some(here) = client else { return Poll::Pending };
            let wake = ready!(here.poll_wake(cx));
            if let Some(wait) = here.on_wake(wake) {
                *aside = client
                    .take()
                    .map(|client| -> Pin<Box<dyn Future<Output = After> + Send>> { Box::pin(client.do_aside(wait)) });
            }
        }
    }
}

/// The task was asked whether it still serves somebody. True when it does not, though it holds a server connection: the
/// last line of defence against a client that is gone and keeps one for ever.
#[cold]
fn answer_call(slot: &Slot, client: &mut Option<Box<Client>>, aside: bool) -> bool {
    match client {
        Some(client) => {
            slot.answer_calls();
            client.looks = true;
            client.is_leaking()
        }
        None if aside && slot.calls() >= CALLS_MAX => {
            tracing::error!(
                process = slot.process,
                "closed a server connection that was kept by a task without a client; this is a bug in Poolhouse"
            );
            true
        }
        None => false,
    }
}

impl Client {
    /// Serves the client until it leaves, fails, is ordered to leave, or is to move to another thread.
    pub fn run(self: Box<Self>) -> ClientTask {
        let slot = self.entry.slot.clone();
        let introduced = Box::pin(async move {
            poll_fn(|cx| {
                self.entry.slot.set_waker(cx.waker().clone());
                Poll::Ready(())
            })
            .await;
            After::GoesOn(self)
        });
        ClientTask { slot, client: None, aside: Some(introduced) }
    }

    /// Does what there is to do, as far as that needs no wait.
    fn on_wake(&mut self, wake: Wake) -> Option<Aside> {
        match wake {
            Wake::Event(event) => return self.on_event(event),
            Wake::Served(Ok(lease), node, need) if lease.is_doubtful() => {
                return Some(Aside::Prove((lease, node), need));
            }
            Wake::Served(served, node, need) => {
                if !self.take_served(served, node, need) {
                    return Some(Aside::Lend(need));
                }
            }
            Wake::Misplaced(need) if !self.lend_or_queue(need) => return Some(Aside::Lend(need)),
            Wake::Misplaced(_) => {}
            Wake::AfterRest => return Some(Aside::Look),
            Wake::Canceled => self.refuse_front(&AcquireError::Canceled),
            Wake::Move(to) => return Some(Aside::Move(to)),
            Wake::LeaveOrder(order) => return Some(Aside::Obey(order)),
            // The server's own error follows, and the session goes on.
            Wake::Limit(ClientLimit::Query(turn)) if self.has_time_to_cancel(turn) => {
                return Some(Aside::CancelStatement);
            }
            Wake::Limit(limit) => return Some(Aside::EndByLimit(limit)),
        }
        None
    }

    fn on_event(&mut self, event: ExchangeEvent) -> Option<Aside> {
        match event {
            ExchangeEvent::NeedServer(need) if !self.lend_or_queue(need) => Some(Aside::Lend(need)),
            ExchangeEvent::NeedServer(_) => None,
            ExchangeEvent::ToJudge => Some(Aside::Judge),
            ExchangeEvent::Released if !self.give_back() => Some(Aside::GiveBack),
            ExchangeEvent::Released => None,
            ExchangeEvent::Left | ExchangeEvent::Done | ExchangeEvent::Idle | ExchangeEvent::NewDefaults => {
                Some(Aside::Desert)
            }
            ExchangeEvent::Failed(report) => Some(Aside::Fail(report)),
            ExchangeEvent::Refused(why) => {
                self.leave_replica(why);
                None
            }
            ExchangeEvent::ServerLost(error) => Some(Aside::LoseServer(error)),
            ExchangeEvent::Fenced if self.leave_fenced() == AfterLoss::Ends => Some(Aside::SayFarewell),
            ExchangeEvent::Fenced => None,
        }
    }

    /// What has to be waited for.
    async fn do_aside(mut self: Box<Self>, aside: Aside) -> After {
        match aside {
            Aside::Lend(need) => {
                if self.lend(need).await.is_err() {
                    self.part().await;
                    return After::Leaves(Leave::Ended);
                }
            }
            Aside::Prove((lease, node), need) => {
                let proven = prove(&self.target, lease, node).await;
                match proven.filter(|_| stays(&self.target, need, node)) {
                    Some(acquired) => self.attach(acquired, need),
                    None if self.lend(need).await.is_err() => return After::Leaves(Leave::Ended),
                    None => {}
                }
            }
            Aside::Judge => self.judge_front().await,
            Aside::Look => self.wait_for_look().await,
            Aside::GiveBack => self.give_back_late().await,
            Aside::CancelStatement => self.cancel_statement().await,
            Aside::LoseServer(error) => {
                let alone = self.is_alone().await;
                if self.lose_server(&error, alone) == AfterLoss::Ends {
                    self.flush().await;
                    self.part().await;
                    return After::Leaves(Leave::Ended);
                }
            }
            Aside::SayFarewell => {
                self.flush().await;
                return After::Leaves(Leave::Ended);
            }
            Aside::Move(to) => {
                self.kept_back = None;
                return After::Leaves(Leave::ToMove(self, to));
            }
            Aside::Obey(order) => {
                self.obey(order).await;
                return After::Leaves(Leave::Ended);
            }
            Aside::EndByLimit(limit) => {
                self.end_by_limit(limit).await;
                return After::Leaves(Leave::Ended);
            }
            Aside::Desert => {
                self.desert().await;
                return After::Leaves(Leave::Ended);
            }
            Aside::Fail(report) => {
                self.fail(ErrorWords::Ours(*report)).await;
                return After::Leaves(Leave::Ended);
            }
        }
        After::GoesOn(self)
    }
}
