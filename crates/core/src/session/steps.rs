//! How much work a message makes, counted in steps: each turn of a loop over what a client can make grow is one. Only
//! tests count (`tests::costs`), where time would depend on the machine.

#[cfg(test)]
pub use super::tests::costs::step;

/// One turn of a loop.
#[cfg(not(test))]
#[inline(always)]
pub fn step() {}

/// The same items, each of which is a step.
#[inline(always)]
pub fn counted<I: Iterator>(items: I) -> impl Iterator<Item = I::Item> {
    items.inspect(|_| step())
}
