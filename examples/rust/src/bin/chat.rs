//! A chat: everybody who opened `ws://ADDRESS/ROOM` reads what anybody there says.
//!
//! `cargo run --bin chat -- [--mode MODE] [ADDRESS]`

use std::io;

use balrog::http::server::{IntoResponse, Request, Server};
use balrog::websocket::{self, Message, Rooms, WebSocket};
use balrog_examples::{Arguments, listen};

fn main() -> io::Result<()> {
    let Arguments { mode, rest } = Arguments::read()?;
    let address = rest.into_iter().next().unwrap_or_else(|| "127.0.0.1:8000".to_owned());
    mode.run(move || {
        let rooms = Rooms::new();
        Server::new().serve(listen(&address)?, move |request: &mut Request<'_>| {
            let (rooms, room) = (rooms.clone(), request.path().to_owned());
            if request.header("upgrade").is_none() {
                return format!("{} people are in {room}\n", rooms.room(&room).len()).into_response();
            }
            websocket::accept(request, move |ws| chat(&rooms, &room, ws))
        })
    })?
}

/// One person's stay. Straight on, as if there were nobody else.
fn chat(rooms: &Rooms, name: &str, mut ws: WebSocket) {
    let room = rooms.room(name);
    let _place = rooms.join(name, &ws);
    room.send(format!("somebody came in, {} are here", room.len()).as_str());
    while let Ok(Some(message)) = ws.recv() {
        if let Message::Text(text) = message {
            room.send(text.as_str());
        }
    }
}
