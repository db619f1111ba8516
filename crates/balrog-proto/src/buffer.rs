//! What came and is not used up; what is to be sent and is not gone.

mod inbox;
mod outbox;

pub use inbox::Inbox;
pub use outbox::{Outbox, Segments, Tail};
