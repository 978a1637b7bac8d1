//! What a hub has for one session, until the session's own task takes it. Bounded: a client that does not read loses its
//! place, and holds up nobody.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;

use crate::clients::Slot;
use poolhouse_core::session::Mail;

/// Most bytes of notifications that wait for one client; their places in the queue come on top, a few tens of bytes each.
pub const MAIL_BYTES_MAX: usize = 1 << 20;

/// What is kept from one notification to the next; more room is given back when it is empty.
const ROOM_KEPT: usize = 16;

#[derive(Debug)]
pub struct Mailbox {
    /// Who is woken.
    slot: Arc<Slot>,
    inner: Mutex<MailboxState>,
    /// Whether there is anything, so that a look costs no lock.
    has_mail: AtomicBool,
}

#[derive(Debug, Default)]
struct MailboxState {
    mail: VecDeque<Mail>,
    /// Of all notifications.
    bytes: usize,
    overflowed: bool,
}

impl Mailbox {
    pub fn new(slot: Arc<Slot>) -> Mailbox {
        Mailbox { slot, inner: Mutex::default(), has_mail: AtomicBool::new(false) }
    }

    /// A whole NotificationResponse message.
    pub fn notify(&self, message: &Bytes) {
        let mut inner = self.lock();
        if inner.overflowed {
            return;
        }
        inner.bytes += message.len();
        if inner.bytes > MAIL_BYTES_MAX {
            // Its task may have found before that the client takes no more, and looks again only when it does.
            self.has_mail.store(false, Ordering::Release);
            *inner = MailboxState { overflowed: true, ..MailboxState::default() };
        } else {
            inner.mail.push_back(Mail::Notification(message.clone()));
        }
        self.wake(inner);
    }

    pub fn push(&self, mail: Mail) {
        let mut inner = self.lock();
        if !inner.overflowed {
            inner.mail.push_back(mail);
            self.wake(inner);
        }
    }

    fn wake(&self, inner: MutexGuard<'_, MailboxState>) {
        let first = !self.has_mail.swap(true, Ordering::AcqRel);
        drop(inner);
        if first {
            self.slot.wake();
        }
    }

    pub fn has_mail(&self) -> bool {
        self.has_mail.load(Ordering::Acquire)
    }

    /// Whether more came than may wait: nothing of it is left then.
    pub fn is_overflowed(&self) -> bool {
        self.lock().overflowed
    }

    /// Whether it is time to make room, also at a bad moment.
    pub fn is_pressed(&self) -> bool {
        self.lock().bytes > MAIL_BYTES_MAX / 2
    }

    /// Shows everything to `take`, in order, until it gives something back. True when anything was taken.
    pub fn open(&self, mut take: impl FnMut(Mail) -> Option<Mail>) -> bool {
        let mut inner = self.lock();
        let mut taken = false;
        while let Some(mail) = inner.mail.pop_front() {
            let size = if let Mail::Notification(bytes) = &mail { bytes.len() } else { 0 };
            if let Some(mail) = take(mail) {
                inner.mail.push_front(mail);
                return taken;
            }
            inner.bytes -= size;
            taken = true;
        }
        if inner.mail.capacity() > ROOM_KEPT {
            inner.mail = VecDeque::new();
        }
        self.has_mail.store(inner.overflowed, Ordering::Release);
        taken
    }

    /// No code under this lock can panic half-way through a change.
    fn lock(&self) -> MutexGuard<'_, MailboxState> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clients::{Entry, Registry},
        metrics::Account,
    };

    fn mailbox() -> (Entry, Mailbox) {
        let registry = Arc::new(Registry::default());
        let account = Arc::new(Account::new("app", "alice", None));
        let entry = registry.enter(&account, Default::default(), None, 4, getrandom::fill).unwrap();
        let mailbox = Mailbox::new(entry.slot.clone());
        (entry, mailbox)
    }

    fn all(mailbox: &Mailbox) -> Vec<Mail> {
        let mut all = Vec::new();
        mailbox.open(|mail| {
            all.push(mail);
            None
        });
        all
    }

    #[test]
    fn mail_keeps_its_order() {
        let (_entry, mailbox) = mailbox();
        assert!(!mailbox.has_mail());
        mailbox.notify(&Bytes::from_static(b"one"));
        mailbox.notify(&Bytes::from_static(b"two"));
        mailbox.push(Mail::Ended(7));
        mailbox.notify(&Bytes::from_static(b"three"));
        assert!(mailbox.has_mail());
        let mut first = Vec::new();
        mailbox.open(|mail| match mail {
            Mail::Ended(_) => Some(mail),
            mail => {
                first.push(mail);
                None
            }
        });
        let notification = |text: &'static [u8]| Mail::Notification(Bytes::from_static(text));
        assert_eq!(first, [notification(b"one"), notification(b"two")]);
        assert!(mailbox.has_mail());
        assert_eq!(all(&mailbox), [Mail::Ended(7), notification(b"three")]);
        assert!(!mailbox.has_mail());
    }

    #[test]
    fn one_that_is_not_emptied_overflows_and_keeps_nothing() {
        let (_entry, mailbox) = mailbox();
        let message = Bytes::from(vec![0; MAIL_BYTES_MAX / 8]);
        for round in 0..8 {
            assert!(!mailbox.is_overflowed(), "{round}");
            mailbox.notify(&message);
        }
        assert!(mailbox.is_pressed() && !mailbox.is_overflowed());
        mailbox.notify(&Bytes::from_static(b"x"));
        assert!(mailbox.is_overflowed() && mailbox.has_mail());
        mailbox.push(Mail::Lost);
        assert!(all(&mailbox).is_empty());
        assert!(mailbox.has_mail(), "it is still to be noticed");
    }

    #[test]
    fn what_is_taken_makes_room() {
        let (_entry, mailbox) = mailbox();
        for _ in 0..100 {
            mailbox.notify(&vec![0; MAIL_BYTES_MAX / 2].into());
            assert_eq!(all(&mailbox).len(), 1);
        }
        assert!(!mailbox.is_overflowed());
    }
}
