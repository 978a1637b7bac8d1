//! Verdicts that have been found, in two tables. `Recent` is small and keeps whole texts that came twice, as those of
//! drivers with parameters do: a hit costs a hash and a comparison. The table behind it keeps verdicts under the
//! canonical forms of their texts, so that texts which differ only in literals share an entry: a hit costs one pass
//! over the text. Neither allocates on a hit.
//!
//! Texts and forms are kept and compared, so that no two can be taken for each other, whatever their hashes; the seed
//! only keeps a client from filling the tables with equal hashes, where each would push out the other. Forms leave by
//! the clock rule: the hand passes over what was used since it last came by.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use super::fingerprint::{Buffer, Form, Keys};
use super::verdict::Verdict;
use super::{Source, judge_source};

/// A form longer than this share of all bytes is not kept.
const SHARE_OF_BYTES: usize = 8;
/// The buffer for forms is given back when a text made it grow beyond this many bytes.
const SCRATCH_MAX: usize = 64 * 1024;
/// What an entry takes besides its form, in bytes; roughly.
const ENTRY_OVERHEAD: usize = 256;
/// The share of all bytes that recent texts may take.
const RECENT_SHARE: usize = 4;
/// Texts longer than this many bytes are not kept as recent.
const RECENT_TEXT_MAX: usize = 1024;
/// What a place for a recent text takes besides the text, in bytes.
const RECENT_OVERHEAD: usize = size_of::<Recent>();

/// Verdicts by the form of their texts; bounded in number and bytes.
pub struct Cache {
    keys: Keys,
    recent: Box<[Recent]>,
    recent_bytes: usize,
    entries_max: usize,
    bytes_max: usize,
    index: HashMap<u64, usize, BuildHasherDefault<Hashed>>,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    hand: usize,
    bytes: usize,
    hits: u64,
    misses: u64,
    scratch: Buffer,
}

/// A place for the texts whose hashes end alike.
#[derive(Clone, Default)]
struct Recent {
    /// The hash of the last text that was not found here: when it comes once more, it takes the place. So a text that
    /// never comes again, because of its literals, is never copied.
    candidate: u64,
    hash: u64,
    text: Box<[u8]>,
    verdict: Option<Arc<Verdict>>,
}

struct Slot {
    hash: u64,
    form: Box<[u8]>,
    /// `None` when the verdict depends on the values of literals: the text is judged anew each time.
    verdict: Option<Arc<Verdict>>,
    used: bool,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Cache").field("len", &self.len()).field("bytes", &self.bytes()).finish()
    }
}

impl Cache {
    /// A cache of at most `entries_max` verdicts and about `bytes_max` bytes, with a fixed seed. For texts that
    /// strangers choose use `new_seeded`.
    pub fn new(entries_max: usize, bytes_max: usize) -> Cache {
        Cache::new_seeded(entries_max, bytes_max, 0)
    }

    /// As `new`, with a seed that nobody else knows. A client that knows the seed can make two of its texts push each
    /// other out of the cache, which costs time; it can never make one text get the verdict of another.
    pub fn new_seeded(entries_max: usize, bytes_max: usize, seed: u64) -> Cache {
        let places = (bytes_max / RECENT_SHARE / (RECENT_TEXT_MAX + RECENT_OVERHEAD)).min(entries_max);
        let places = if places == 0 { 0 } else { 1 << places.ilog2() };
        Cache {
            keys: Keys::new(seed),
            recent: vec![Recent::default(); places].into(),
            recent_bytes: places * RECENT_OVERHEAD,
            entries_max,
            bytes_max: bytes_max - bytes_max / RECENT_SHARE,
            index: HashMap::default(),
            slots: Vec::new(),
            free: Vec::new(),
            hand: 0,
            bytes: 0,
            hits: 0,
            misses: 0,
            scratch: Buffer::default(),
        }
    }

    /// The verdict of a text, as it came from the client: always equal to what `judge_bytes` says, but that the verdict
    /// of a harmless text may stand for one that differs in comments only and is not parsed because of them.
    #[inline]
    pub fn verdict(&mut self, sql: &[u8]) -> Arc<Verdict> {
        if sql.len() > RECENT_TEXT_MAX || self.recent.is_empty() {
            return self.verdict_by_form(sql);
        }
        let hash = self.keys.hash(sql);
        let place = hash as usize & (self.recent.len() - 1);
        let recent = &self.recent[place];
        if recent.hash == hash
            && let Some(verdict) = &recent.verdict
            && *recent.text == *sql
        {
            self.hits += 1;
            return Arc::clone(verdict);
        }
        let verdict = self.verdict_by_form(sql);
        let recent = &mut self.recent[place];
        if recent.candidate == hash {
            self.recent_bytes = self.recent_bytes - recent.text.len() + sql.len();
            *recent = Recent { candidate: hash, hash, text: sql.into(), verdict: Some(Arc::clone(&verdict)) };
        } else {
            recent.candidate = hash;
        }
        verdict
    }

    fn verdict_by_form(&mut self, sql: &[u8]) -> Arc<Verdict> {
        let source = Source::of(sql);
        // A NUL makes a text unreadable wherever it stands, also where the form does not show it.
        if sql.contains(&0) || self.scratch.write(source.mark(), sql) != Form::Regular {
            self.misses += 1;
            self.scratch.trim(SCRATCH_MAX);
            return Arc::new(judge_source(source).verdict);
        }
        let hash = self.keys.hash(self.scratch.form());
        let found = self.index.get(&hash).copied();
        if let Some(slot) = found.and_then(|at| self.slots[at].as_mut())
            && *slot.form == *self.scratch.form()
        {
            slot.used = true;
            if let Some(verdict) = &slot.verdict {
                self.hits += 1;
                let verdict = Arc::clone(verdict);
                self.scratch.trim(SCRATCH_MAX);
                return verdict;
            }
            self.misses += 1;
            return Arc::new(judge_source(source).verdict);
        }
        self.misses += 1;
        let judgement = judge_source(source);
        let verdict = Arc::new(judgement.verdict);
        if let Some(at) = found {
            self.remove(at);
        }
        self.insert(hash, (!judgement.literal).then(|| Arc::clone(&verdict)));
        self.scratch.trim(SCRATCH_MAX);
        verdict
    }

    /// How many texts were answered from the cache.
    pub fn hits(&self) -> u64 {
        self.hits
    }

    /// How many texts had to be parsed.
    pub fn misses(&self) -> u64 {
        self.misses
    }

    /// How many forms are kept.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// About how many bytes the cache takes.
    pub fn bytes(&self) -> usize {
        self.bytes + self.recent_bytes
    }

    /// Keeps a verdict under the form in `scratch`, if it is not too long.
    fn insert(&mut self, hash: u64, verdict: Option<Arc<Verdict>>) {
        let size = self.scratch.form().len() + ENTRY_OVERHEAD;
        if self.entries_max == 0 || size > self.bytes_max / SHARE_OF_BYTES {
            return;
        }
        while self.index.len() >= self.entries_max || self.bytes + size > self.bytes_max {
            self.evict();
        }
        let slot = Slot { hash, form: self.scratch.form().into(), verdict, used: false };
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[at] = Some(slot);
        self.index.insert(hash, at);
        self.bytes += size;
    }

    /// Moves the hand on to the next entry that was not used since its last visit, and removes that.
    fn evict(&mut self) {
        loop {
            self.hand = (self.hand + 1) % self.slots.len();
            match &mut self.slots[self.hand] {
                Some(slot) if slot.used => slot.used = false,
                Some(_) => return self.remove(self.hand),
                None => {}
            }
        }
    }

    fn remove(&mut self, at: usize) {
        if let Some(slot) = self.slots[at].take() {
            self.index.remove(&slot.hash);
            self.bytes -= slot.form.len() + ENTRY_OVERHEAD;
            self.free.push(at);
        }
    }
}

/// For keys that are hashes already.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}
