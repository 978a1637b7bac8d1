//! Random scripts.

use proptest::prelude::*;

use super::script::play;

proptest! {
    #![proptest_config(ProptestConfig {
        // PROPTEST_CASES=100000 for a long run.
        cases: ProptestConfig::default().cases * 8,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_client_sees_what_it_would_see_alone(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        play(&bytes);
    }
}
