//! Every fuzz target runs over its corpus, on stable, without a fuzzer.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::targets::TARGETS;

/// The files of a corpus, in order of their names.
pub(crate) fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
    let mut files: Vec<_> = fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[test]
fn every_target_replays_its_corpus() {
    for target in TARGETS {
        let files = corpus(target.corpus);
        assert!(files.len() >= 10, "{} has {} files", target.corpus, files.len());
        for (path, bytes) in files {
            // The name of what fails is the last line of the output.
            eprintln!("{} {}", target.name, path.display());
            (target.run)(&bytes);
        }
    }
}
