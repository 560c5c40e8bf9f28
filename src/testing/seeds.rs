//! Seeds of simulations: replay one, or run more of them.

use std::env::{self, VarError};

/// Runs `simulation` for the seeds 0 to `default_count - 1`. A panic prints the command that replays its seed.
///
/// `name` is the path of the test or its module, as `cargo test` filters it. Two environment variables change the seeds
/// of all simulations: `SIM_SEED=17` runs that seed only, `SIM_SEEDS=10000` runs that many.
///
/// # Panics
///
/// If the simulation panics, or if one of the variables is not a number.
pub(crate) fn for_each_seed(name: &str, default_count: u64, mut simulation: impl FnMut(u64)) {
    let seeds = match (number("SIM_SEED"), number("SIM_SEEDS")) {
        (Some(seed), _) => seed..=seed,
        (None, count) => match count.unwrap_or(default_count).checked_sub(1) {
            Some(last) => 0..=last,
            None => return,
        },
    };
    for seed in seeds {
        let _replay = PrintReplay { name, seed };
        simulation(seed);
    }
}

/// Prints the replay command if it is dropped by a panic.
struct PrintReplay<'a> {
    name: &'a str,
    seed: u64,
}

impl Drop for PrintReplay<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "seed {seed} failed; replay it with: SIM_SEED={seed} cargo test --lib {}",
                self.name,
                seed = self.seed
            );
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    match env::var(variable) {
        Ok(text) => Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number"))),
        Err(VarError::NotPresent) => None,
        Err(error) => panic!("{variable}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_count_from_zero_unless_the_environment_says_otherwise() {
        let mut seeds = Vec::new();
        for_each_seed("testing::seeds", 3, |seed| seeds.push(seed));
        match (number("SIM_SEED"), number("SIM_SEEDS")) {
            (Some(seed), _) => assert_eq!(seeds, [seed]),
            (None, count) => assert_eq!(seeds, (0..count.unwrap_or(3)).collect::<Vec<_>>()),
        }
    }
}
