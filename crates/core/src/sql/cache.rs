//! Verdicts that have been found, in two tables. `Recent` is small and keeps patterns of texts that came twice: what
//! drivers send again and again, the same or with other literals. A hit costs a hash of the text up to its first
//! literal and a comparison. The table behind it keeps verdicts under the canonical forms of their texts, so that also
//! texts which differ in white space or in the number of rows share an entry: a hit costs one pass over the text.
//! Neither allocates on a hit.
//!
//! Patterns and forms are kept and compared, so that no two can be taken for each other, whatever their hashes; the
//! seed only keeps a client from filling the tables with equal hashes, where each would push out the other. Forms
//! leave by the clock rule: the hand passes over what was used since it last came by.

mod pattern;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use memchr::memchr;

use self::pattern::{FormPattern, Sketch};
use super::fingerprint::{Buffer, Form, Keys};
use super::known::KnownText;
use super::normal::{Called, Normal};
use super::{JudgedApart, Source, judge_source};

/// A form longer than this share of all bytes is not kept.
const SHARE_OF_BYTES: usize = 8;
/// The buffer for forms is given back when a text made it grow beyond this many bytes.
const SCRATCH_MAX: usize = 64 * 1024;
/// What an entry takes besides its form, in bytes; roughly.
const ENTRY_OVERHEAD: usize = 256;
/// The share of all bytes that recent patterns may take.
const RECENT_SHARE: usize = 4;
/// How many patterns, and how many candidates, have a set together.
const WAYS: usize = 4;
/// After this many texts in a row that were looked for in a set in vain, the set is left alone for `u8::MAX` texts:
/// comparing and learning would cost more than they bring where the same tokens hardly ever come twice, as with rows
/// of ever other number.
const VAIN_MAX: u8 = 16;
/// What a set takes when all its patterns are as large as can be, in bytes.
const RECENT_MAX: usize = size_of::<Recent>() + WAYS * pattern::BYTES_MAX;

/// Verdicts by the form of their texts; bounded in number and bytes.
pub struct Cache {
    keys: Keys,
    recent: Box<[Recent]>,
    recent_bytes: usize,
    entries_max: usize,
    bytes_max: usize,
    index: HashMap<u64, usize, BuildHasherDefault<Hashed>>,
    slots: Vec<Option<FormSlot>>,
    free: Vec<usize>,
    hand: usize,
    bytes: usize,
    hits: u64,
    misses: u64,
    evictions: u64,
    scratch: Buffer,
    nameless: Arc<Normal>,
}

/// A set of patterns whose keys end alike.
#[derive(Default)]
struct Recent {
    keys: [u64; WAYS],
    known: [Option<FormVerdict>; WAYS],
    /// Hashes of the patterns that were not found here lately: one that comes once more is kept. So the pattern of a
    /// text that never comes again is never made.
    candidates: [u64; WAYS],
    /// Which pattern will be replaced next, and which candidate.
    oldest: u8,
    oldest_candidate: u8,
    /// How many texts in a row were not found here; and for how many more the set will be left alone because of that.
    vain: u8,
    idle: u8,
}

struct FormVerdict {
    pattern: FormPattern,
    verdict: Arc<KnownText>,
}

impl Recent {
    #[inline]
    fn find(&mut self, key: u64, sql: &[u8]) -> Option<&Arc<KnownText>> {
        if self.idle > 0 {
            self.idle -= 1;
            return None;
        }
        for (kept, known) in self.keys.iter().zip(&self.known) {
            if *kept == key
                && let Some(known) = known
                && known.pattern.matches(sql)
            {
                self.vain = 0;
                return Some(&known.verdict);
            }
        }
        self.vain += 1;
        if self.vain == VAIN_MAX {
            (self.vain, self.idle) = (0, u8::MAX);
        }
        None
    }

    /// Whether a candidate has come before, and then forgets it; if not, notes it.
    fn is_second(&mut self, candidate: u64) -> bool {
        if let Some(noted) = self.candidates.iter_mut().find(|noted| **noted == candidate) {
            *noted = 0;
            return true;
        }
        self.candidates[self.oldest_candidate as usize] = candidate;
        self.oldest_candidate = (self.oldest_candidate + 1) % WAYS as u8;
        false
    }

    /// Keeps a pattern in place of the oldest. Says how many bytes that one had.
    fn keep(&mut self, key: u64, known: FormVerdict) -> usize {
        let way = self.oldest as usize;
        self.oldest = (self.oldest + 1) % WAYS as u8;
        self.keys[way] = key;
        self.known[way].replace(known).map_or(0, |old| old.pattern.bytes())
    }
}

/// A verdict, and whether it holds for all texts of the form in `scratch` that are UTF-8.
struct CacheAnswer {
    verdict: Arc<KnownText>,
    by_form: bool,
}

struct FormSlot {
    hash: u64,
    form: Box<[u8]>,
    called: Called,
    /// `None` when the verdict depends on the values of literals: the text is judged anew each time.
    verdict: Option<Arc<KnownText>>,
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
    /// other out of the cache, which costs time; it can never make one text get the verdict of another. Without the
    /// seed it can do the same to patterns of texts that begin as its own do, which are then found by their forms.
    pub fn new_seeded(entries_max: usize, bytes_max: usize, seed: u64) -> Cache {
        let sets = (bytes_max / RECENT_SHARE / RECENT_MAX).min(entries_max.div_ceil(WAYS));
        let sets = if sets == 0 { 0 } else { 1 << sets.ilog2() };
        Cache {
            keys: Keys::new(seed),
            recent: std::iter::repeat_with(Recent::default).take(sets).collect(),
            recent_bytes: sets * size_of::<Recent>(),
            entries_max,
            bytes_max: bytes_max - bytes_max / RECENT_SHARE,
            index: HashMap::default(),
            slots: Vec::new(),
            free: Vec::new(),
            hand: 0,
            bytes: 0,
            hits: 0,
            misses: 0,
            evictions: 0,
            scratch: Buffer::default(),
            nameless: Arc::new(Normal::nameless()),
        }
    }

    /// The verdict of a text, as it came from the client: always equal to what `judge_bytes` says, but that the verdict
    /// of a harmless text may stand for one that differs in comments only and is not parsed because of them.
    #[inline]
    pub fn verdict(&mut self, sql: &[u8]) -> Arc<KnownText> {
        let key = pattern::key(self.keys, sql);
        let set = key as usize & self.recent.len().wrapping_sub(1);
        if let Some(recent) = self.recent.get_mut(set)
            && let Some(verdict) = recent.find(key, sql)
        {
            self.hits += 1;
            return Arc::clone(verdict);
        }
        let answer = self.verdict_by_form(sql);
        self.learn(set, key, sql, &answer);
        self.scratch.trim(SCRATCH_MAX);
        answer.verdict
    }

    /// The verdict of a text, when it is known without parsing it.
    pub fn find(&mut self, sql: &[u8]) -> Option<Arc<KnownText>> {
        let key = pattern::key(self.keys, sql);
        let set = key as usize & self.recent.len().wrapping_sub(1);
        if let Some(recent) = self.recent.get_mut(set)
            && let Some(verdict) = recent.find(key, sql)
        {
            return Some(Arc::clone(verdict));
        }
        let hash = self.hash_of_form(sql)?;
        let slot = self.index.get(&hash).and_then(|at| self.slots[*at].as_mut())?;
        if *slot.form != *self.scratch.form() {
            return None;
        }
        slot.used = true;
        slot.verdict.clone()
    }

    /// Takes in the verdict of a text that was parsed elsewhere, and gives it.
    pub fn take(&mut self, sql: &[u8], judged: JudgedApart) -> Arc<KnownText> {
        self.misses += 1;
        let judgement = judged.0;
        let hash = self.hash_of_form(sql);
        let called = if hash.is_some() { self.called() } else { self.nameless() };
        let verdict = Arc::new(KnownText::new(judgement.verdict, called));
        if let Some(hash) = hash {
            if let Some(at) = self.index.get(&hash).copied() {
                self.remove(at);
            }
            self.insert(hash, verdict.called().clone(), (!judgement.literal).then(|| Arc::clone(&verdict)));
        }
        self.scratch.trim(SCRATCH_MAX);
        verdict
    }

    /// Writes the form of a text; `None` when the text has none that tells all.
    fn hash_of_form(&mut self, sql: &[u8]) -> Option<u64> {
        // A NUL makes a text unreadable wherever it stands, also where the form does not show it.
        let regular = memchr(0, sql).is_none() && self.scratch.write(Source::of(sql).mark(), sql) == Form::Regular;
        regular.then(|| self.keys.hash(self.scratch.form()))
    }

    #[inline(never)]
    fn verdict_by_form(&mut self, sql: &[u8]) -> CacheAnswer {
        let source = Source::of(sql);
        let Some(hash) = self.hash_of_form(sql) else {
            self.misses += 1;
            let verdict = KnownText::new(judge_source(source).verdict, self.nameless());
            return CacheAnswer { verdict: Arc::new(verdict), by_form: false };
        };
        // A pattern checks that what stands in its places is UTF-8, so it cannot stand for texts that are not.
        let utf8 = matches!(source, Source::Utf8(_));
        let found = self.index.get(&hash).copied();
        if let Some(slot) = found.and_then(|at| self.slots[at].as_mut())
            && *slot.form == *self.scratch.form()
        {
            slot.used = true;
            if let Some(verdict) = &slot.verdict {
                self.hits += 1;
                return CacheAnswer { verdict: Arc::clone(verdict), by_form: utf8 };
            }
            self.misses += 1;
            let verdict = KnownText::new(judge_source(source).verdict, slot.called.clone());
            return CacheAnswer { verdict: Arc::new(verdict), by_form: false };
        }
        self.misses += 1;
        let judgement = judge_source(source);
        let verdict = Arc::new(KnownText::new(judgement.verdict, self.called()));
        if let Some(at) = found {
            self.remove(at);
        }
        self.insert(hash, verdict.called().clone(), (!judgement.literal).then(|| Arc::clone(&verdict)));
        CacheAnswer { verdict, by_form: utf8 && !judgement.literal }
    }

    /// Keeps the pattern of a text that was not found among the recent ones, when it comes the second time.
    fn learn(&mut self, set: usize, key: u64, sql: &[u8], answer: &CacheAnswer) {
        let places = if answer.by_form { self.scratch.places() } else { &[] };
        let Some(recent) = self.recent.get_mut(set).filter(|recent| recent.idle == 0) else { return };
        let Some(sketch) = Sketch::of(sql, places) else { return };
        if recent.is_second(sketch.hash(self.keys)) {
            let known = FormVerdict { pattern: sketch.pattern(), verdict: Arc::clone(&answer.verdict) };
            self.recent_bytes += known.pattern.bytes();
            self.recent_bytes -= recent.keep(key, known);
        }
    }

    /// How many texts were answered from the cache.
    pub fn hits(&self) -> u64 {
        self.hits
    }

    /// How many texts had to be parsed.
    pub fn misses(&self) -> u64 {
        self.misses
    }

    /// How many forms had to make room for others.
    pub fn evictions(&self) -> u64 {
        self.evictions
    }

    /// How many forms are kept.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether no form is kept.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// About how many bytes the cache takes.
    pub fn bytes(&self) -> usize {
        self.bytes + self.recent_bytes
    }

    /// How texts of the form in `scratch` are called.
    fn called(&self) -> Called {
        Called(Some(Arc::new(Normal::of_form(&self.scratch.form()[1..]))))
    }

    fn nameless(&self) -> Called {
        Called(Some(self.nameless.clone()))
    }

    /// Keeps a verdict under the form in `scratch`, if it is not too long.
    fn insert(&mut self, hash: u64, called: Called, verdict: Option<Arc<KnownText>>) {
        let size = self.scratch.form().len() + ENTRY_OVERHEAD;
        if self.entries_max == 0 || size > self.bytes_max / SHARE_OF_BYTES {
            return;
        }
        while self.index.len() >= self.entries_max || self.bytes + size > self.bytes_max {
            self.evict();
        }
        let slot = FormSlot { hash, form: self.scratch.form().into(), called, verdict, used: false };
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
                Some(_) => {
                    self.evictions += 1;
                    return self.remove(self.hand);
                }
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
