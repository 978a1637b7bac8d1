//! How many workers serve, and which share of a worker's clients moves to another: as few as carry the load, since two
//! half-busy threads sleep and wake more often than one busy one. A pure rule: what each worker did goes in, standing
//! orders come out, and time is counted in looks, about ten a second.

/// What one worker did since the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// What its thread used of a core, in thousandths.
    pub busy: u32,
    pub clients: usize,
}

/// Of the clients of one worker that become active next, each of which is asked once, a share moves to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MoveOrder {
    pub from: usize,
    pub to: usize,
    /// In thousandths, from 1 to 1000.
    pub share: u32,
}

/// All, in thousandths.
pub const ALL: u32 = 1000;

/// A worker that uses this much of a core is busy: some of its clients should go elsewhere.
pub const BUSY: u32 = 700;

/// One that uses this much could do with more than there is: nobody knows how much more.
const FULL: u32 = 900;

/// What each should use after workers are added.
const AIM: u32 = 600;

/// When one worker less would use no more than this each, the last one is spared. Far below what makes one busy, also
/// when the load has cost more for being spread.
const CALM: u32 = 400;

/// Clients move to a worker in use only when it uses this much less than the busy one.
const GAP: u32 = 250;

/// Looks in a row: a burst moves nobody.
const BUSY_LOOKS: u32 = 3;

/// Looks in a row: several seconds.
const CALM_LOOKS: u32 = 50;

/// Looks for which an order stands and nothing is concluded from the loads, which it changes.
const SETTLING_LOOKS: u32 = 2;

/// The workers in use are the first ones.
#[derive(Debug)]
pub struct Spread {
    in_use: usize,
    /// For each worker, the looks in a row at which it was busy.
    busy_looks: Vec<u32>,
    calm_looks: u32,
    settling: u32,
    orders: Vec<MoveOrder>,
}

impl Spread {
    /// For so many workers, of which one is in use.
    pub fn new(workers: usize) -> Spread {
        Spread { in_use: 1, busy_looks: vec![0; workers], calm_looks: 0, settling: 0, orders: Vec::new() }
    }

    /// How many workers take clients.
    pub fn in_use(&self) -> usize {
        self.in_use
    }

    /// Looks at all workers. The orders are those that stand from now to the next look.
    pub fn look(&mut self, loads: &[Load]) -> Vec<MoveOrder> {
        if self.settling > 0 {
            self.settling -= 1;
        } else {
            self.orders.clear();
            for (looks, load) in self.busy_looks.iter_mut().zip(loads) {
                *looks = if load.busy >= BUSY { *looks + 1 } else { 0 };
            }
            self.relieve(loads);
            self.gather(loads);
        }
        let mut orders = self.orders.clone();
        orders.extend(self.stragglers(loads));
        orders
    }

    /// Gives clients of busy workers to others.
    fn relieve(&mut self, loads: &[Load]) {
        let mut tired: Vec<usize> = (0..loads.len()).filter(|&worker| self.busy_looks[worker] >= BUSY_LOOKS).collect();
        tired.sort_by_key(|&worker| std::cmp::Reverse(loads[worker].busy));
        let Some(&last) = tired.iter().max() else { return };
        // One that was to be spared, but has clients that could not move.
        self.in_use = self.in_use.max(last + 1);
        let most = workers_wanted(loads).clamp(self.in_use, loads.len());
        for from in tired {
            let Some(to) = self.relief_for(from, loads, most) else { continue };
            let share = share_to_even_out(loads[from], loads[to]);
            // One whose load is a single client's keeps it.
            if loads[from].clients * share as usize / ALL as usize == 0 {
                continue;
            }
            self.in_use = self.in_use.max(to + 1);
            self.orders.push(MoveOrder { from, to, share });
        }
        if !self.orders.is_empty() {
            self.settling = SETTLING_LOOKS;
            self.busy_looks.fill(0);
            self.calm_looks = 0;
        }
    }

    /// The least busy one in use, if that is much less busy and nobody else's clients go there already, or the next
    /// one.
    fn relief_for(&self, from: usize, loads: &[Load], most: usize) -> Option<usize> {
        let free = |to: &usize| self.orders.iter().all(|order| order.to != *to);
        let lighter = |to: &usize| loads[*to].busy + GAP <= loads[from].busy;
        let used = (0..self.in_use).filter(free).filter(lighter).min_by_key(|&to| loads[to].busy);
        used.or_else(|| (self.in_use < most).then_some(self.in_use))
    }

    /// Spares the last worker once the others have been able to carry its load for a while.
    fn gather(&mut self, loads: &[Load]) {
        let total: u32 = loads.iter().map(|load| load.busy).sum();
        let calm = self.in_use > 1 && total <= CALM * (self.in_use as u32 - 1);
        self.calm_looks = if calm { self.calm_looks + 1 } else { 0 };
        if self.calm_looks >= CALM_LOOKS {
            self.calm_looks = 0;
            self.in_use -= 1;
        }
    }

    /// Who is still at a worker that is not in use goes to the one in use with fewest clients.
    fn stragglers(&self, loads: &[Load]) -> impl Iterator<Item = MoveOrder> {
        let fewest = (0..self.in_use).min_by_key(|&worker| loads[worker].clients).unwrap_or(0);
        let left = loads.iter().enumerate().skip(self.in_use).filter(|(_, load)| load.clients > 0);
        left.map(move |(from, _)| MoveOrder { from, to: fewest, share: ALL })
    }
}

/// How many workers the load needs, as far as it can be told.
fn workers_wanted(loads: &[Load]) -> usize {
    if loads.iter().any(|load| load.busy >= FULL) {
        return usize::MAX;
    }
    let total: u32 = loads.iter().map(|load| load.busy).sum();
    total.div_ceil(AIM) as usize
}

/// What has to move for both to be equally busy.
fn share_to_even_out(from: Load, to: Load) -> u32 {
    from.busy.saturating_sub(to.busy) * ALL / (2 * from.busy.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Workers of which each client makes a load, and who do at once as they are told.
    struct World {
        spread: Spread,
        /// By worker: what each of its clients asks for, in thousandths of a core.
        clients: Vec<Vec<u32>>,
        moves: usize,
    }

    impl World {
        fn new(workers: usize, clients: usize, each: u32) -> World {
            let mut all = vec![Vec::new(); workers];
            all[0] = vec![each; clients];
            World { spread: Spread::new(workers), clients: all, moves: 0 }
        }

        fn loads(&self) -> Vec<Load> {
            let load =
                |clients: &Vec<u32>| Load { busy: clients.iter().sum::<u32>().min(1000), clients: clients.len() };
            self.clients.iter().map(load).collect()
        }

        fn look(&mut self) {
            let before = self.spread.orders.clone();
            let orders = self.spread.look(&self.loads());
            for order in orders.iter().filter(|order| order.share == ALL || !before.contains(order)) {
                assert!(order.from != order.to && order.to < self.spread.in_use());
                assert!((1..=ALL).contains(&order.share));
                let count = self.clients[order.from].len() * order.share as usize / ALL as usize;
                let stay = self.clients[order.from].len() - count;
                let moved = self.clients[order.from].split_off(stay);
                self.clients[order.to].extend(moved);
                self.moves += 1;
            }
        }

        fn looks(&mut self, count: usize) {
            for _ in 0..count {
                self.look();
            }
        }

        fn ask(&mut self, each: u32) {
            self.clients.iter_mut().flatten().for_each(|client| *client = each);
        }

        fn serving(&self) -> usize {
            self.clients.iter().filter(|clients| !clients.is_empty()).count()
        }
    }

    #[test]
    fn a_load_that_one_carries_stays_with_one() {
        let mut world = World::new(8, 500, 1);
        world.looks(1000);
        assert_eq!((world.spread.in_use(), world.serving(), world.moves), (1, 1, 0));
    }

    #[test]
    fn a_burst_moves_nobody() {
        let mut world = World::new(2, 100, 1);
        for _ in 0..100 {
            world.ask(20);
            world.looks(2);
            world.ask(1);
            world.looks(1);
        }
        assert_eq!((world.spread.in_use(), world.moves), (1, 0));
    }

    #[test]
    fn an_overload_spreads_within_two_seconds() {
        // Five cores' worth of work for eight workers.
        let mut world = World::new(8, 1000, 5);
        world.looks(20);
        assert!(world.loads().iter().all(|load| load.busy < FULL), "{:?}", world.loads());
        assert!((6..=8).contains(&world.serving()), "{}", world.serving());
    }

    #[test]
    fn no_more_are_used_than_there_are() {
        let mut world = World::new(4, 1000, 10);
        world.looks(30);
        let before = world.moves;
        assert_eq!(world.serving(), 4);
        world.looks(300);
        assert_eq!(world.moves, before, "all are full, and nothing helps");
    }

    #[test]
    fn what_is_known_to_need_two_gets_two() {
        let mut world = World::new(8, 100, 8);
        world.looks(100);
        assert_eq!((world.spread.in_use(), world.serving(), world.moves), (2, 2, 1));
    }

    #[test]
    fn it_comes_together_again_when_the_load_falls() {
        let mut world = World::new(8, 1000, 5);
        world.looks(20);
        world.ask(0);
        world.looks(45);
        assert!(world.serving() > 5, "not at once");
        world.looks(400);
        assert_eq!((world.spread.in_use(), world.serving()), (1, 1));
        assert_eq!(world.clients[0].len(), 1000, "nobody is lost");
    }

    #[test]
    fn no_steady_load_makes_clients_go_to_and_fro() {
        for workers in [2, 3, 8] {
            for count in [2, 3, 10, 300] {
                for demand in (0..9000).step_by(450) {
                    let mut world = World::new(workers, count, demand / count as u32);
                    world.looks(200);
                    let moves = world.moves;
                    world.looks(1000);
                    assert_eq!(world.moves, moves, "{workers} workers, {count} clients, {demand}");
                }
            }
        }
    }

    #[test]
    fn a_load_between_the_thresholds_changes_nothing() {
        let mut world = World::new(2, 100, 8);
        world.looks(10);
        assert_eq!(world.serving(), 2);
        for each in [5, 7, 6, 5, 8, 9] {
            world.ask(each);
            world.looks(100);
        }
        assert_eq!((world.serving(), world.moves), (2, 1));
    }

    #[test]
    fn one_heavy_client_is_left_alone_with_a_worker() {
        let mut world = World::new(4, 40, 1);
        world.clients[0][0] = 950;
        world.looks(100);
        assert_eq!(world.clients[0], [950, 1], "the others have gone, but for one that makes no difference");
        assert_eq!(world.spread.in_use(), 2, "and nobody is used for nothing");
        let moves = world.moves;
        world.looks(1000);
        assert_eq!(world.moves, moves);
    }

    #[test]
    fn a_busy_worker_is_relieved_by_one_in_use_first() {
        let mut world = World::new(4, 100, 8);
        world.looks(10);
        assert_eq!(world.spread.in_use(), 2);
        // One of the two gets more to do, the other less.
        world.clients[0].iter_mut().for_each(|client| *client = 18);
        world.clients[1].iter_mut().for_each(|client| *client = 1);
        world.looks(10);
        assert_eq!(world.spread.in_use(), 2);
        assert!(world.loads().iter().all(|load| load.busy < BUSY), "{:?}", world.loads());
    }

    #[test]
    fn one_whose_clients_cannot_move_is_used_again_when_it_is_busy() {
        let mut spread = Spread::new(3);
        let loads = |last: u32| [Load { busy: 10, clients: 5 }, Load::default(), Load { busy: last, clients: 4 }];
        let straggling = MoveOrder { from: 2, to: 0, share: ALL };
        for _ in 0..10 {
            assert_eq!(spread.look(&loads(100)), [straggling]);
        }
        let orders: Vec<MoveOrder> =
            (0..5).flat_map(|_| spread.look(&loads(900))).filter(|order| *order != straggling).collect();
        assert_eq!(spread.in_use(), 3);
        assert_eq!(orders[0], MoveOrder { from: 2, to: 1, share: 500 });
    }

    #[test]
    fn an_order_stands_for_a_while_and_then_falls() {
        let mut spread = Spread::new(2);
        let loads = [Load { busy: 1000, clients: 10 }, Load::default()];
        let standing: Vec<usize> = (0..6).map(|_| spread.look(&loads).len()).collect();
        assert_eq!(standing, [0, 0, 1, 1, 1, 0]);
    }
}
