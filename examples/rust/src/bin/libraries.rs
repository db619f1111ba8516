//! Libraries that know nothing of balrog, over its streams: `serde_json` reads orders from one as
//! they come, and tungstenite, a synchronous WebSocket library, speaks over another.
//!
//! `cargo run --bin libraries -- [--mode MODE]`

use std::error::Error;
use std::io::{self, Write};

use balrog::net::{TcpListener, TcpStream, UnixStream};
use balrog::spawn;
use balrog_examples::Arguments;
use serde_json::{Deserializer, Value, json};
use tungstenite::Message;

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let Arguments { mode, .. } = Arguments::read()?;
    mode.run(|| {
        println!("{} orders", orders()?);
        println!("the kitchen says {}", kitchen()?);
        Ok(())
    })?
}

/// A stream of JSON values, read while it is written.
fn orders() -> io::Result<usize> {
    let (mut writer, reader) = UnixStream::pair()?;
    let mut cook = spawn(move || -> io::Result<()> {
        for number in 0..1_000 {
            serde_json::to_writer(&mut writer, &json!({"order": number, "dish": "soup"}))?;
            writer.flush()?;
        }
        Ok(())
    })?;
    let mut count = 0;
    for order in Deserializer::from_reader(reader).into_iter::<Value>() {
        assert_eq!(order?["order"], count);
        count += 1;
    }
    cook.join()??;
    Ok(count)
}

fn kitchen() -> Result<String, Box<dyn Error + Send + Sync>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let mut server = spawn(move || -> Result<(), Box<dyn Error + Send + Sync>> {
        let (stream, _) = listener.accept()?;
        let mut ws = tungstenite::accept(stream)?;
        let order = ws.read()?;
        ws.send(Message::text(format!("{order} is ready")))?;
        Ok(())
    })?;
    let stream = TcpStream::connect("127.0.0.1", port, None)?;
    let (mut ws, _) = tungstenite::client(format!("ws://127.0.0.1:{port}/"), stream)?;
    ws.send(Message::text("soup"))?;
    let answer = ws.read()?.to_string();
    server.join()??;
    Ok(answer)
}
