use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Payload, Sender, WebSocket};

/// WebSockets by names: of users, of topics. A message for a room is encoded once, however many
/// are in it. Cheap to clone; its WebSockets are those of one thread's tasks (or, in blocking
/// mode, of any threads).
#[derive(Debug, Clone, Default)]
pub struct Rooms(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    last: u64,
    rooms: HashMap<String, Vec<(u64, Sender)>>,
}

/// One of [`Rooms`].
#[derive(Debug)]
pub struct Room<'r> {
    rooms: &'r Rooms,
    name: &'r str,
}

/// A place in a room; dropped, the WebSocket leaves it.
#[derive(Debug)]
#[must_use = "the WebSocket leaves the room when this is dropped"]
pub struct Membership {
    rooms: Rooms,
    name: String,
    number: u64,
}

impl Rooms {
    /// No room.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a WebSocket into the room of this name.
    pub fn join(&self, name: &str, ws: &WebSocket) -> Membership {
        let mut state = self.lock();
        state.last += 1;
        let number = state.last;
        state.rooms.entry(name.to_owned()).or_default().push((number, ws.sender()));
        Membership { rooms: self.clone(), name: name.to_owned(), number }
    }

    /// The room of this name, empty or not.
    pub const fn room<'r>(&'r self, name: &'r str) -> Room<'r> {
        Room { rooms: self, name }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing of others runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn members(&self, name: &str) -> Vec<(u64, Sender)> {
        self.lock().rooms.get(name).cloned().unwrap_or_default()
    }

    fn leave(&self, name: &str, number: u64) {
        let mut state = self.lock();
        let Some(members) = state.rooms.get_mut(name) else { return };
        let gone = members.iter().position(|(other, _)| *other == number).map(|at| members.swap_remove(at));
        if members.is_empty() {
            state.rooms.remove(name);
        }
        drop(state);
        // Closing may take a while.
        drop(gone);
    }
}

impl Room<'_> {
    /// Sends a message to everybody in the room, without a wait, and says how many they are.
    ///
    /// Who is closed, or so slow that more than [`Limits::unsent`](super::Limits::unsent) waits
    /// for it, is put out of the room and closed with 1013.
    pub fn send<'a>(&self, message: impl Into<Payload<'a>>) -> usize {
        let members = self.rooms.members(self.name);
        if members.is_empty() {
            return 0;
        }
        let message = message.into().prepare();
        let mut sent = 0;
        for (number, member) in members {
            if member.post(&message) {
                sent += 1;
            } else {
                self.rooms.leave(self.name, number);
                member.give_up();
            }
        }
        sent
    }

    /// How many are in it.
    pub fn len(&self) -> usize {
        self.rooms.lock().rooms.get(self.name).map_or(0, Vec::len)
    }

    /// Whether nobody is in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.rooms.leave(&self.name, self.number);
    }
}
