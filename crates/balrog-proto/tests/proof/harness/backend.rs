//! A session of ours with a server that answers by a plan: whatever it is, the owner has to hear
//! what the server said to each of its commands, in any pieces, and the session has to end.

use std::collections::VecDeque;
use std::time::Instant;

use balrog_proto::postgres::{
    Batch, Bind, Config, Format, Frontend, FrontendEvent, Parameter, TransactionStatus,
};
use balrog_proto::{Error, Inbox, Interest, Link, Machine, Outbox, Step};

use super::choices::Choices;
use super::pair::{Owner, Pair, Turn};

/// What one unit (up to its ReadyForQuery) asks for, and what comes of it.
#[derive(Debug, Clone)]
enum Ask {
    /// A simple query with so many rows.
    Query {
        rows: Vec<Vec<u8>>,
        fails: bool,
    },
    /// An extended query in one round trip.
    Extended {
        rows: Vec<Vec<u8>>,
        fails: bool,
    },
    CopyIn {
        pieces: Vec<Vec<u8>>,
        fails: bool,
    },
    CopyOut {
        pieces: Vec<Vec<u8>>,
    },
}

impl Ask {
    fn of(choices: &mut Choices<'_>) -> Self {
        let data = |choices: &mut Choices<'_>| -> Vec<Vec<u8>> {
            (0..choices.below(4)).map(|_| vec![choices.byte(); choices.size()]).collect()
        };
        let fails = choices.below(4) == 3;
        match choices.below(4) {
            0 => Self::Query { rows: data(choices), fails },
            1 => Self::Extended { rows: data(choices), fails },
            2 => Self::CopyIn { pieces: data(choices), fails },
            _ => Self::CopyOut { pieces: data(choices) },
        }
    }

    /// What the owner has to hear, in order.
    fn heard(&self) -> Vec<String> {
        let mut heard = Vec::new();
        match self {
            Self::Query { rows, fails } | Self::Extended { rows, fails } => {
                if matches!(self, Self::Extended { .. }) {
                    heard.extend(["parsed".into(), "bound".into()]);
                }
                heard.push("columns".into());
                heard.extend(rows.iter().map(|row| format!("row {}", row.escape_ascii())));
                heard.push(if *fails { "error".into() } else { "complete".into() });
            }
            Self::CopyIn { fails, .. } => {
                heard.push("copy in".into());
                heard.push(if *fails { "error".into() } else { "complete".into() });
            }
            Self::CopyOut { pieces } => {
                heard.push("copy out".into());
                heard.extend(pieces.iter().map(|piece| format!("copy {}", piece.escape_ascii())));
                heard.extend(["copy done".into(), "complete".into()]);
            }
        }
        heard.push("ready".into());
        heard
    }
}

fn message(out: &mut Vec<u8>, tag: u8, body: &[u8]) {
    out.push(tag);
    out.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    out.extend_from_slice(body);
}

const ERROR: &[u8] = b"SERROR\0VERROR\0C42P01\0Mno\0\0";
const COPY: &[u8] = &[0, 0, 1, 0, 0];

/// The server: it reads whole messages, checks that they are what the plan says, and answers.
#[derive(Debug)]
struct Server {
    plan: VecDeque<Ask>,
    started: bool,
    /// What has come of a COPY FROM STDIN.
    copied: Option<Vec<u8>>,
    closed: bool,
}

impl Server {
    fn answer(&mut self, tag: u8, body: &[u8], out: &mut Vec<u8>) {
        // Whatever else goes on, such things may come.
        message(out, b'N', b"SNOTICE\0VNOTICE\0C00000\0Mhm\0\0");
        match tag {
            b'Q' => match self.plan.pop_front().expect("a query of the plan") {
                Ask::Query { rows, fails } => {
                    self.rows(&rows, fails, out);
                    self.ready(out);
                }
                Ask::CopyOut { pieces } => {
                    message(out, b'H', COPY);
                    pieces.iter().for_each(|piece| message(out, b'd', piece));
                    message(out, b'c', b"");
                    message(out, b'C', b"COPY 1\0");
                    self.ready(out);
                }
                ask @ Ask::CopyIn { .. } => {
                    message(out, b'G', COPY);
                    self.copied = Some(Vec::new());
                    self.plan.push_front(ask);
                }
                ask => panic!("a simple query for {ask:?}"),
            },
            b'd' => self.copied.as_mut().expect("a COPY").extend_from_slice(body),
            b'c' | b'f' => {
                let Some(Ask::CopyIn { pieces, fails }) = self.plan.pop_front() else { panic!("no COPY") };
                assert_eq!(tag == b'f', fails);
                assert_eq!(self.copied.take(), Some(pieces.concat()));
                if fails {
                    message(out, b'E', ERROR);
                } else {
                    message(out, b'C', b"COPY 1\0");
                }
                self.ready(out);
            }
            b'P' => message(out, b'1', b""),
            b'B' => message(out, b'2', b""),
            b'D' | b'E' if matches!(self.plan.front(), Some(Ask::Extended { .. })) => {
                let Some(Ask::Extended { rows, fails }) = self.plan.front().cloned() else { return };
                if tag == b'D' {
                    columns(out);
                } else {
                    rows.iter().for_each(|value| row(out, value));
                    end(fails, out);
                }
            }
            b'S' => {
                assert!(matches!(self.plan.pop_front(), Some(Ask::Extended { .. })));
                self.ready(out);
            }
            b'X' => self.closed = true,
            tag => panic!("an unexpected message {}", tag.escape_ascii()),
        }
    }

    fn rows(&self, rows: &[Vec<u8>], fails: bool, out: &mut Vec<u8>) {
        columns(out);
        rows.iter().for_each(|value| row(out, value));
        end(fails, out);
    }

    fn ready(&self, out: &mut Vec<u8>) {
        message(out, b'A', b"\0\0\0\x01news\0text\0");
        message(out, b'Z', b"I");
    }
}

fn columns(out: &mut Vec<u8>) {
    message(out, b'T', b"\0\x01a\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0");
}

fn row(out: &mut Vec<u8>, value: &[u8]) {
    let body = [&b"\0\x01"[..], &(value.len() as u32).to_be_bytes(), value].concat();
    message(out, b'D', &body);
}

fn end(fails: bool, out: &mut Vec<u8>) {
    if fails {
        message(out, b'E', ERROR);
    } else {
        message(out, b'C', b"SELECT 1\0");
    }
}

impl Machine for Server {
    type Event<'b> = ();

    fn advance<'b>(
        &'b mut self,
        _now: Instant,
        inbox: &'b mut Inbox,
        outbox: &mut Outbox,
    ) -> Result<Step<()>, Error> {
        while !self.closed {
            let header = if self.started { 5 } else { 4 };
            let Some(length) = inbox.bytes().get(header - 4..header) else { break };
            let size = header - 4 + u32::from_be_bytes(length.try_into().unwrap()) as usize;
            let Some(whole) = inbox.bytes().get(..size) else { break };
            let (tag, body) = (whole[0], whole[header..].to_vec());
            inbox.discard(size);
            let mut out = Vec::new();
            if self.started {
                self.answer(tag, &body, &mut out);
            } else {
                self.started = true;
                message(&mut out, b'R', &[0; 4]);
                message(&mut out, b'S', b"server_version\x0015\0");
                message(&mut out, b'K', b"\0\0\0\x01abcd");
                message(&mut out, b'Z', b"I");
            }
            outbox.push(&out);
        }
        if self.closed || inbox.is_eof() {
            self.closed = true;
            outbox.shutdown();
            return Ok(Step::Closed);
        }
        Ok(Step::NeedInput)
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn timeout(&mut self, _now: Instant, _outbox: &mut Outbox) -> Result<(), Error> {
        Ok(())
    }

    fn interest(&self) -> Interest {
        Interest::read_if(!self.closed)
    }
}

struct Nobody;

impl Owner<Server> for Nobody {
    fn turn(&mut self, link: &mut Link<Server>, now: Instant) -> Turn {
        match link.poll_event(now).unwrap() {
            Step::Closed => Turn::Over,
            _ => Turn::Idle,
        }
    }
}

/// The session's owner: sends units, several at once, and notes what it hears.
struct Asking {
    plan: VecDeque<Ask>,
    /// How many units may be under way at once. A COPY FROM STDIN is the last of them.
    depth: usize,
    under_way: VecDeque<Ask>,
    copying: Option<(VecDeque<Vec<u8>>, bool)>,
    started: bool,
    heard: Vec<String>,
    row: Vec<u8>,
    copy: Vec<u8>,
}

impl Asking {
    fn ask(&mut self, link: &mut Link<Frontend>) -> Turn {
        if let Some((pieces, fails)) = &mut self.copying {
            if link.is_congested() {
                return Turn::Idle;
            }
            assert!(link.query("select 1").is_err(), "a query in a COPY");
            match pieces.pop_front() {
                Some(piece) => link.copy_data(&piece).unwrap(),
                None => {
                    if *fails {
                        link.copy_fail("no").unwrap();
                    } else {
                        link.copy_done().unwrap();
                    }
                    self.copying = None;
                    assert!(link.copy_data(b"x").is_err(), "data behind a COPY");
                }
            }
            return Turn::Busy;
        }
        let copies = self.under_way.iter().any(|ask| matches!(ask, Ask::CopyIn { .. }));
        if !self.started || copies || self.under_way.len() >= self.depth {
            return Turn::Idle;
        }
        let Some(next) = self.plan.pop_front() else {
            if !self.under_way.is_empty() {
                return Turn::Idle;
            }
            assert!(link.is_idle());
            assert_eq!(link.transaction_status(), TransactionStatus::Idle);
            assert_eq!(link.parameter("server_version"), Some(&b"15"[..]));
            link.terminate();
            assert!(link.query("select 1").is_err(), "a query behind the end");
            return Turn::Busy;
        };
        match &next {
            Ask::Extended { .. } => {
                let mut batch = Batch::new();
                let bind = Bind {
                    portal: "",
                    statement: "",
                    parameters: &[Parameter::Text(b"x"), Parameter::Null],
                    results: &[Format::Text],
                };
                batch.parse("", "select $1, $2", &[]).unwrap().bind(&bind).unwrap();
                batch.describe_portal("").unwrap().execute("", 0).unwrap().sync();
                link.send(&mut batch).unwrap();
                assert!(batch.is_empty());
            }
            _ => {
                let unsent = link.unsent();
                assert!(link.query("nul \0").is_err());
                assert_eq!(link.unsent(), unsent);
                link.query("select 1").unwrap();
            }
        }
        self.under_way.push_back(next);
        Turn::Busy
    }

    fn hear(&mut self, event: &FrontendEvent<'_>) {
        use balrog_proto::postgres::Piece;
        let said = match event {
            FrontendEvent::Started => {
                self.started = true;
                return;
            }
            // The first one is of the log-in.
            FrontendEvent::Ready { .. } if self.under_way.pop_front().is_none() => return,
            FrontendEvent::Ready { .. } => "ready".into(),
            FrontendEvent::ServerError(report) => {
                assert_eq!(report.code(), "42P01");
                "error".into()
            }
            FrontendEvent::Notice(report) => {
                assert_eq!(report.message(), "hm");
                return;
            }
            FrontendEvent::Notification { process: 1, channel: b"news", payload: b"text" }
            | FrontendEvent::Parameter { .. } => return,
            FrontendEvent::Parsed => "parsed".into(),
            FrontendEvent::Bound => "bound".into(),
            FrontendEvent::Columns(columns) => {
                assert_eq!((columns.len(), &columns[0].name[..]), (1, &b"a"[..]));
                "columns".into()
            }
            FrontendEvent::Row(row) => {
                assert_eq!(row.len(), 1);
                format!("row {}", row.get(0).unwrap().unwrap().escape_ascii())
            }
            FrontendEvent::Piece(Piece::Row(1) | Piece::Column(Some(_))) => return,
            FrontendEvent::Piece(Piece::Data(data)) => {
                self.row.extend_from_slice(data);
                return;
            }
            FrontendEvent::Piece(Piece::End) => {
                format!("row {}", std::mem::take(&mut self.row).escape_ascii())
            }
            FrontendEvent::Complete { .. } => "complete".into(),
            FrontendEvent::CopyIn(_) => {
                let Some(Ask::CopyIn { pieces, fails }) = self.under_way.front() else { panic!("no COPY") };
                self.copying = Some((pieces.clone().into(), *fails));
                "copy in".into()
            }
            FrontendEvent::CopyOut(_) => "copy out".into(),
            FrontendEvent::CopyData { data, last } => {
                self.copy.extend_from_slice(data);
                if !last {
                    return;
                }
                format!("copy {}", std::mem::take(&mut self.copy).escape_ascii())
            }
            FrontendEvent::CopyDone => "copy done".into(),
            other => panic!("{other:?} was not said"),
        };
        self.heard.push(said);
    }
}

impl Owner<Frontend> for Asking {
    fn turn(&mut self, link: &mut Link<Frontend>, now: Instant) -> Turn {
        match link.poll_event(now).expect("the server keeps the rules") {
            Step::Event(event) => self.hear(&event),
            Step::NeedInput | Step::Paused => return self.ask(link),
            Step::Closed => return Turn::Over,
        }
        Turn::Busy
    }
}

/// Holds a session made of these choices.
pub fn hold_session(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let wire = choices.wire();
    let depth = 1 + choices.below(4);
    let mut config = Config::new("me");
    config.limits.whole = choices.one_of(&[1 << 20, 64, 1]);
    let plan: Vec<Ask> = (0..choices.below(7)).map(|_| Ask::of(&mut choices)).collect();
    let asking = Asking {
        plan: plan.clone().into(),
        depth,
        under_way: VecDeque::new(),
        copying: None,
        started: false,
        heard: Vec::new(),
        row: Vec::new(),
        copy: Vec::new(),
    };
    let server = Server { plan: plan.clone().into(), started: false, copied: None, closed: false };
    let mut entropy = |bytes: &mut [u8]| bytes.fill(7);
    let mut pair = Pair::new(
        (Link::new(Frontend::new(config, &mut entropy).unwrap()), asking),
        (Link::new(server), Nobody),
        wire,
    );
    pair.drive_to_the_end();
    let expected: Vec<String> = plan.iter().flat_map(Ask::heard).collect();
    assert_eq!(pair.a.owner.heard, expected);
    assert!(pair.b.link.machine().plan.is_empty());
}
