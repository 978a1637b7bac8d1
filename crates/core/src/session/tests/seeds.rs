//! What the fuzz targets have found, or found hard to reach: played again on every run.

use std::{fs, path::Path};

use super::bodies;

fn replay(target: &str, body: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/seeds").join(target);
    let mut count = 0;
    for seed in fs::read_dir(folder).expect("the seeds") {
        let seed = seed.expect("a seed").path();
        body(&fs::read(&seed).unwrap_or_else(|error| panic!("{}: {error}", seed.display())));
        count += 1;
    }
    assert!(count > 0, "there are no seeds of {target}");
}

#[test]
fn seeds_of_frames() {
    replay("frames", bodies::frames);
}

#[test]
fn seeds_of_session() {
    replay("session", bodies::session);
}
