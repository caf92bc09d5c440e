//! Who comes before whom.

/// The numbers below `count` in an order in which each is behind those that it comes
/// after, and otherwise as it was (Kahn's algorithm).
///
/// # Errors
/// A number that would come after itself.
pub(super) fn order(
    count: usize,
    after: impl Fn(usize) -> Vec<usize>,
) -> Result<Vec<usize>, usize> {
    let mut behind = vec![Vec::new(); count];
    let mut missing = vec![0_usize; count];
    for (one, missing) in missing.iter_mut().enumerate() {
        for before in after(one) {
            behind[before].push(one);
            *missing += 1;
        }
    }
    let mut ready: std::collections::BTreeSet<usize> =
        (0..count).filter(|one| missing[*one] == 0).collect();
    let mut ordered = Vec::with_capacity(count);
    while let Some(one) = ready.pop_first() {
        ordered.push(one);
        for next in &behind[one] {
            missing[*next] -= 1;
            if missing[*next] == 0 {
                ready.insert(*next);
            }
        }
    }
    match missing.iter().position(|missing| *missing > 0) {
        Some(left) => Err(left),
        None => Ok(ordered),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn whoever_is_free_keeps_its_place_and_a_circle_is_found() {
        let after = |of: &'static [&'static [usize]]| move |one: usize| of[one].to_vec();
        assert_eq!(order(3, after(&[&[], &[], &[]])), Ok(vec![0, 1, 2]));
        assert_eq!(order(3, after(&[&[2], &[], &[1]])), Ok(vec![1, 2, 0]));
        assert_eq!(order(3, after(&[&[], &[2], &[1]])), Err(1));
        assert_eq!(order(1, after(&[&[0]])), Err(0));
    }

    proptest! {
        #[test]
        fn each_is_behind_those_that_it_comes_after(
            edges in prop::collection::vec((0_usize..8, 0_usize..8), 0..20),
        ) {
            let after = |one: usize| {
                edges.iter().filter(|(a, _)| *a == one).map(|(_, b)| *b).collect::<Vec<_>>()
            };
            if let Ok(ordered) = order(8, after) {
                let at = |one: usize| ordered.iter().position(|other| *other == one).unwrap();
                prop_assert!(edges.iter().all(|(a, b)| at(*b) < at(*a)));
                prop_assert_eq!(ordered.len(), 8);
            }
        }
    }
}
