//! Deadlines and cancellations at every wait.

use std::io;
use std::time::{Duration, Instant};

use balrog::http::Method;
use balrog::{Interrupt, sleep_until, spawn, with_deadline};

use crate::proxy::{Fault, Of};
use crate::site::{At, hear, pattern};
use crate::{in_every_mode, proxied};

/// The bytes of one side pause behind every few of them, and the work is interrupted meanwhile: by
/// a deadline and by a cancellation in turn.
fn interrupt_everywhere(tls: bool, work: fn(&At) -> io::Result<()>) -> io::Result<()> {
    let (site, proxy, at) = proxied(tls)?;
    for of in [Of::Server, Of::Client] {
        let (mut interrupted, mut behind) = (0, 1);
        for turn in 0.. {
            proxy.set_of(of, Fault::Pause(Duration::from_millis(20)), behind);
            let soon = Instant::now() + Duration::from_millis(6);
            let result = if turn % 2 == 0 {
                with_deadline(soon, || work(&at))
            } else {
                let at = at.clone();
                let mut task = spawn(move || work(&at))?;
                sleep_until(soon)?;
                task.cancel();
                task.join()?
            };
            // Interrupted early on a busy machine, it says nothing.
            let over = result.is_ok() && proxy.is_pending();
            proxy.set(Fault::None, 0);
            if let Err(error) = result {
                assert!(Interrupt::of(&error).is_some(), "{of:?} at {behind}: {error:?}");
                interrupted += 1;
            }
            // In its place comes nobody else's answer.
            at.echo(Method::PUT, behind as u64, 10)?;
            if over {
                break;
            }
            behind += 11 + behind / 4;
        }
        assert!(interrupted > 2, "{of:?}: {interrupted}");
    }
    site.stop()
}

#[test]
fn an_exchange_is_interrupted() {
    in_every_mode(|| interrupt_everywhere(false, |at| at.echo(Method::PUT, 7, 3_000)));
}

#[test]
fn an_exchange_over_tls_is_interrupted() {
    in_every_mode(|| {
        interrupt_everywhere(true, |at| {
            // A new configuration: a new connection, and a handshake.
            let tls = balrog::tls::TlsConfig::new(Some(crate::site::certificate()), None)?;
            At { tls: Some(tls), ..at.clone() }.echo(Method::PUT, 7, 3_000)
        })
    });
}

#[test]
fn a_download_is_interrupted() {
    in_every_mode(|| interrupt_everywhere(false, |at| at.download(7, 60_000, || Ok(()))));
}

#[test]
fn a_websocket_is_interrupted() {
    in_every_mode(|| interrupt_everywhere(false, |at| at.chat(7, 2, 1_000)));
}

#[test]
fn a_websocket_over_tls_is_interrupted() {
    in_every_mode(|| interrupt_everywhere(true, |at| at.chat(7, 2, 1_000)));
}

/// Every wait of a WebSocket is given up again and again, and it comes through: nothing is lost,
/// and nothing is said twice.
#[test]
fn a_websocket_goes_on_after_every_interrupt() {
    in_every_mode(|| {
        for tls in [false, true] {
            let (site, proxy, at) = proxied(tls)?;
            let mut ws = at.websocket()?;
            let (count, size) = (20, 100_000);
            let (mut interrupted, mut heard) = (0, 0);
            for number in 0..count {
                proxy.set(Fault::Pause(Duration::from_millis(20)), size / 2);
                // What was interrupted is on its way, and goes with whatever comes next.
                let soon = Instant::now() + Duration::from_micros(200);
                let sent = with_deadline(soon, || ws.send(&pattern(number, size)));
                interrupted += is_interrupted(sent)?;
                let soon = Instant::now() + Duration::from_millis(5);
                match with_deadline(soon, || hear(&mut ws, heard, size)) {
                    Ok(()) => heard += 1,
                    error => interrupted += is_interrupted(error)?,
                }
            }
            proxy.set(Fault::None, 0);
            for number in heard..count {
                hear(&mut ws, number, size)?;
            }
            ws.close(1000, "")?;
            drop(ws);
            assert!(interrupted > 5, "{interrupted}");
            site.stop()?;
        }
        Ok(())
    });
}

fn is_interrupted(result: io::Result<()>) -> io::Result<u32> {
    match result {
        Err(error) if Interrupt::of(&error) == Some(Interrupt::Deadline) => Ok(1),
        result => result.map(|()| 0),
    }
}
