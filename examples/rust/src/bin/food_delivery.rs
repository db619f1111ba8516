//! Delivers food. An order goes into PostgreSQL, over HTTP to the kitchen, which takes its time, and
//! over WebSocket to its customer. One function, in a straight line; how many of them run at once,
//! and on what, is for `--mode` to say.
//!
//! `cargo run --bin food_delivery -- [--mode MODE] ADDRESS DATABASE KITCHEN`
//!
//! `curl -d soup http://ADDRESS/orders/ann`, while a WebSocket is open at `ws://ADDRESS/ws/ann`.

use std::io;
use std::sync::Arc;

use balrog::http::server::{IntoResponse, Request, Response, Server};
use balrog::http::{self, StatusCode};
use balrog::postgres::{Client, Pool};
use balrog::websocket::{self, Rooms};
use balrog_examples::{Arguments, listen};
use serde_json::Value;

const TABLE: &str = "create table if not exists orders(id bigserial primary key, customer text, dish text)";

struct Site {
    db: Pool,
    customers: Rooms,
    kitchen: String,
}

fn main() -> io::Result<()> {
    let Arguments { mode, rest } = Arguments::read()?;
    let [address, database, kitchen] =
        rest.try_into().map_err(|_| io::Error::other("food_delivery takes ADDRESS DATABASE KITCHEN"))?;
    mode.run(move || {
        Client::connect(&database)?.batch_execute(TABLE)?;
        let site = Arc::new(Site { db: Pool::new(&database, 20)?, customers: Rooms::new(), kitchen });
        Server::new().serve(listen(&address)?, move |request: &mut Request<'_>| {
            let path = request.path().to_owned();
            if let Some(customer) = path.strip_prefix("/ws/") {
                return wait_for_food(&site, request, customer.to_owned());
            }
            let answer = match path.strip_prefix("/orders/") {
                Some(customer) => deliver(&site, request, customer),
                None => Ok(StatusCode::NOT_FOUND.into_response()),
            };
            answer.unwrap_or_else(|error| {
                eprintln!("{path}: {error}");
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            })
        })
    })?
}

fn deliver(site: &Site, request: &mut Request<'_>, customer: &str) -> io::Result<Response> {
    let dish = String::from_utf8_lossy(&request.body(1_000)?).into_owned();
    let insert = "insert into orders(customer, dish) values ($1, $2) returning id";
    // The connection goes back before the kitchen begins.
    let id: i64 = site.db.get()?.query_one(insert, &[&customer, &dish])?.get("id")?;
    let reply = http::post(&site.kitchen).form(&[("order", &id.to_string()), ("dish", &dish)]).send()?;
    if reply.status() != StatusCode::CREATED {
        return Ok((StatusCode::BAD_GATEWAY, "the kitchen has a problem\n").into_response());
    }
    let when: Value = reply.json()?;
    let message = format!("Order #{id} will be delivered in {} minutes.", when["mins"]);
    site.customers.room(customer).send(message.as_str());
    Ok(format!("{when}\n").into_response())
}

fn wait_for_food(site: &Arc<Site>, request: &Request<'_>, customer: String) -> Response {
    let site = Arc::clone(site);
    websocket::accept(request, move |mut ws| {
        let _place = site.customers.join(&customer, &ws);
        // Says nothing that matters; what counts is that it is there.
        while let Ok(Some(_)) = ws.recv() {}
    })
}
