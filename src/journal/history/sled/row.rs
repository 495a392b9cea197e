//! Values in a row, each written once, in a tree of sled.
//!
//! sled adds a change to a page as a link, and writes the page anew with all its values at the
//! tenth link, and again when it has more than sixteen keys and is split: a row that simply grows
//! is written almost twice. So the keys come first, with nothing in them, far enough
//! ahead that the page of a key is split before the key gets its value. Then the
//! eight values of a page are eight links, and none is written again.

use super::super::trouble::Trouble;

/// How far ahead the keys are: the last page has no more than seventeen of them.
const AHEAD: u32 = 32;

/// How many keys are made at a time.
const MADE_AT_ONCE: u32 = 256;

/// A row of values, by number.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) tree: sled::Tree,
    /// The number of the next value.
    next: u32,
    /// There are keys up to this number.
    made: u32,
}

pub(super) fn key(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

pub(super) fn number(key: &[u8]) -> Result<u32, Trouble> {
    let number = key.try_into().map(u32::from_be_bytes);
    number.map_err(|_| Trouble::Damage("a bad key in a row".into()))
}

impl Row {
    /// A row whose next value has this number.
    pub(super) fn open(tree: sled::Tree, next: u32) -> Result<Self, Trouble> {
        let made = match tree.last()? {
            Some((last, _)) => number(&last)? + 1,
            None => 0,
        };
        Ok(Self { tree, next, made: made.max(next) })
    }

    pub(super) fn next(&self) -> u32 {
        self.next
    }

    /// Adds a value; gives its number. It is durable after a sync.
    pub(super) fn push(&mut self, value: &[u8]) -> Result<u32, Trouble> {
        if self.made < self.next + AHEAD {
            for number in self.made..self.made + MADE_AT_ONCE {
                self.tree.insert(key(number), &[] as &[u8])?;
            }
            self.made += MADE_AT_ONCE;
        }
        let number = self.next;
        self.tree.insert(key(number), value)?;
        self.next += 1;
        Ok(number)
    }

    pub(super) fn get(&self, number: u32) -> Result<Option<sled::IVec>, Trouble> {
        Ok(self.tree.get(key(number))?.filter(|value| !value.is_empty()))
    }
}
