//! Follows the links of a site, a few pages at a time, and says what it found.
//!
//! `cargo run --bin crawler -- [--mode MODE] URL [AT_ONCE]`

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use balrog::http::client::Client;
use balrog::sync::Semaphore;
use balrog::{JoinHandle, spawn};
use balrog_examples::Arguments;

struct Crawl {
    client: Client,
    site: String,
    /// Pages that may be asked for at once.
    permits: Semaphore,
    /// What came of each page, and `None` while it is on its way.
    pages: Mutex<BTreeMap<String, Option<u16>>>,
}

impl Crawl {
    /// Whether this is the first to look at the page.
    fn is_new(&self, path: &str) -> bool {
        let mut pages = self.pages();
        let new = !pages.contains_key(path);
        if new {
            pages.insert(path.to_owned(), None);
        }
        new
    }

    fn pages(&self) -> MutexGuard<'_, BTreeMap<String, Option<u16>>> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn main() -> io::Result<()> {
    let Arguments { mode, rest } = Arguments::read()?;
    let mut words = rest.into_iter();
    let start = words.next().ok_or_else(|| io::Error::other("crawler takes a URL"))?;
    let at_once = words.next().map_or(Ok(4), |word| word.parse()).map_err(io::Error::other)?;
    mode.run(move || {
        let site = start.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
        let path = start[site.len()..].to_owned();
        let permits = Semaphore::new(at_once);
        let crawl = Arc::new(Crawl { client: Client::new(), site, permits, pages: Mutex::default() });
        if let Some(mut first) = visit(&crawl, if path.is_empty() { "/".to_owned() } else { path })? {
            first.join()??;
        }
        for (path, status) in crawl.pages().iter() {
            println!("{} {path}", status.unwrap_or(0));
        }
        Ok(())
    })?
}

/// Looks at a page that nobody has looked at, and at those that it links to; done when they are.
fn visit(crawl: &Arc<Crawl>, path: String) -> io::Result<Option<JoinHandle<io::Result<()>>>> {
    if !crawl.is_new(&path) {
        return Ok(None);
    }
    let crawl = Arc::clone(crawl);
    let task = spawn(move || {
        let permit = crawl.permits.acquire()?;
        let page = crawl.client.get(&format!("{}{path}", crawl.site)).send()?;
        let status = page.status().as_u16();
        let text = page.text()?;
        drop(permit);
        crawl.pages().insert(path, Some(status));
        let mut further = Vec::new();
        for link in text.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
            if link.starts_with('/') {
                further.extend(visit(&crawl, link.to_owned())?);
            }
        }
        for mut page in further {
            page.join()??;
        }
        Ok(())
    })?;
    Ok(Some(task))
}
