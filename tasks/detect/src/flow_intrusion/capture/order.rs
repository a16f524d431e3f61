//! A list of small numbers in the order in which they came, from which any can be taken out at once.

/// No number.
pub(super) const NONE: u32 = u32::MAX;

/// Numbers in a list from which any can be taken out at once.
pub(super) struct Order {
    head: u32,
    tail: u32,
    /// For each number the one before and the one after.
    links: Vec<[u32; 2]>,
}

impl Order {
    /// An empty list.
    pub(super) fn new() -> Order {
        Order {
            head: NONE,
            tail: NONE,
            links: Vec::new(),
        }
    }

    /// The number that has been in it for longest.
    pub(super) fn head(&self) -> Option<u32> {
        (self.head != NONE).then_some(self.head)
    }

    /// Adds a number that is not in the list at its end.
    pub(super) fn push(&mut self, at: u32) {
        if self.links.len() <= at as usize {
            self.links.resize(at as usize + 1, [NONE; 2]);
        }
        self.links[at as usize] = [self.tail, NONE];
        match self.tail {
            NONE => self.head = at,
            tail => self.links[tail as usize][1] = at,
        }
        self.tail = at;
    }

    /// Takes out a number that is in the list.
    pub(super) fn remove(&mut self, at: u32) {
        let [before, after] = self.links[at as usize];
        match before {
            NONE => self.head = after,
            before => self.links[before as usize][1] = after,
        }
        match after {
            NONE => self.tail = before,
            after => self.links[after as usize][0] = before,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn it_is_a_queue_with_holes(steps in prop::collection::vec(0u32..12, 1..200)) {
            let mut order = Order::new();
            let mut plain: Vec<u32> = Vec::new();
            for at in steps {
                match plain.iter().position(|p| *p == at) {
                    Some(place) => {
                        plain.remove(place);
                        order.remove(at);
                    }
                    None => {
                        plain.push(at);
                        order.push(at);
                    }
                }
                prop_assert_eq!(order.head(), plain.first().copied());
            }
            for at in plain {
                prop_assert_eq!(order.head(), Some(at));
                order.remove(at);
            }
            prop_assert_eq!(order.head(), None);
        }
    }
}
