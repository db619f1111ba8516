//! Idle connections: no task and no stack, until there is something to do.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use balrog_sched::{LocalFuture, Runtime, with_runtime};

use super::connection::{Connection, READ};
use super::{IntoResponse, Request, Service, spawn};

/// Leaves an idle connection to the executor of the code here, `until` it may be readable.
pub(super) fn park<F, R>(service: Arc<Service<F>>, connection: Connection, until: LocalFuture<()>)
where
    F: Fn(&mut Request<'_>) -> R + Send + Sync + 'static,
    R: IntoResponse,
{
    // Only where there is a runtime, a wait ends with `until`.
    let Some(runtime) = balrog_sched::runtime() else { return };
    let timer = connection.inner.link.poll_timeout().map(balrog_sched::timer);
    let inside = Rc::clone(&runtime);
    runtime.spawn_local(Box::pin(Idle {
        service,
        connection: Some(connection),
        until,
        timer,
        runtime: inside,
    }));
}

struct Idle<F> {
    service: Arc<Service<F>>,
    /// Out once it has a task again.
    connection: Option<Connection>,
    until: LocalFuture<()>,
    timer: Option<LocalFuture<()>>,
    /// Where its task is to run. A future has none of its own on every executor.
    runtime: Rc<dyn Runtime>,
}

impl<F, R> Future for Idle<F>
where
    F: Fn(&mut Request<'_>) -> R + Send + Sync + 'static,
    R: IntoResponse,
{
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let Some(connection) = &mut this.connection else { return Poll::Ready(()) };
        let closed = !connection.entry.park(context.waker());
        let filled = match connection.fill_when(&mut this.until, context) {
            Poll::Ready(filled) => filled,
            Poll::Pending if closed => Ok(()),
            Poll::Pending => {
                let Some(timer) = &mut this.timer else { return Poll::Pending };
                match timer.as_mut().poll(context) {
                    Poll::Pending => return Poll::Pending,
                    // What it has to say to that is said by a task.
                    Poll::Ready(()) => {
                        connection.inner.link.handle_timeout(Instant::now()).map_err(Into::into)
                    }
                }
            }
        };
        if let Some(connection) = this.connection.take() {
            let runtime = Some(Rc::clone(&this.runtime));
            with_runtime(runtime, || go_on(&this.service, connection, filled));
        }
        Poll::Ready(())
    }
}

impl Connection {
    /// Reads once `until` is ready: here, since what comes may be nothing or the end, and begins
    /// a task for something only.
    fn fill_when(&mut self, until: &mut LocalFuture<()>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while until.as_mut().poll(context).is_ready() {
            match self.inner.try_fill(READ) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                filled => return Poll::Ready(filled),
            }
            match self.inner.stream.readable() {
                Ok(Some(again)) => *until = again,
                // Its task waits on its own stack.
                Ok(None) => return Poll::Ready(Ok(())),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Pending
    }
}

/// Gives the connection a task again.
fn go_on<F, R>(service: &Arc<Service<F>>, mut connection: Connection, filled: io::Result<()>)
where
    F: Fn(&mut Request<'_>) -> R + Send + Sync + 'static,
    R: IntoResponse,
{
    let (entry, inside) = (Arc::clone(&connection.entry), Arc::clone(service));
    let begun = spawn(service, &entry, move || {
        if !connection.resume(filled)? {
            return Ok(None);
        }
        connection.run(&inside.handler)
    });
    if let Err(error) = begun {
        // Without a stack for it the connection ends.
        eprintln!("balrog: no task for an idle connection: {error}");
    }
}
