// The pages of `docs/` that a newcomer reads, with their links to each other.
//
// The first definition of a link counts: those here, not the files that the pages name at their ends.

#![doc = "[exit-mapping]: exit_mapping"]
#![doc = "[tracing]: tracing"]
#![doc = "[coming-from]: coming_from"]
#![doc = "[limits]: limits"]
#![doc = ""]
#![doc = include_str!("../docs/guide.md")]

#[doc = include_str!("../docs/coming-from.md")]
pub mod coming_from {}

#[doc = include_str!("../docs/limits.md")]
pub mod limits {}

#[doc = include_str!("../docs/exit-mapping.md")]
pub mod exit_mapping {}

#[doc = include_str!("../docs/tracing.md")]
pub mod tracing {}
