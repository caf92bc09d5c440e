//! What others see of a dyno. Its supervisor alone changes that, and waits for nobody.
//!
//! What the channel lends is a lock: whoever looks once more while it is held waits for
//! ever as soon as the supervisor has something new to say. So nothing of it gets out.

use crate::sync::watch;

/// A look at the latest of something, whenever one is wanted.
#[derive(Debug, Clone)]
pub(super) struct Window<T>(watch::Receiver<T>);

impl<T: Clone> Window<T> {
    /// On what is sent there.
    pub(super) fn on(shown: watch::Receiver<T>) -> Self {
        Self(shown)
    }

    /// As it is now.
    pub(super) fn now(&self) -> T {
        self.0.borrow().clone()
    }

    /// Something of it as it is now, without a copy of the rest. `look` is quick, and looks
    /// through no window: nothing new can be said meanwhile.
    pub(super) fn look<U>(&self, look: impl FnOnce(&T) -> U) -> U {
        look(&self.0.borrow())
    }

    /// As soon as it is so; none where the sender goes before.
    pub(super) async fn until(&self, is_so: impl FnMut(&T) -> bool) -> Option<T> {
        let mut shown = self.0.clone();
        shown.wait_for(is_so).await.ok().map(|it| it.clone())
    }
}
