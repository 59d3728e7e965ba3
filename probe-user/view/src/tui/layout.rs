//! Where the parts of the screen are. Pure, and the same for drawing and for the mouse.
//!
//! ```text
//! whereis-port  node1  eBPF  123 ports  7 netns  5 containers  2 clusters  0 lost   bar
//!  1 Ports  2 Path  3 Events  4 Sources          group netns  filter kube        tabs
//!   PORT PROTO ADDRESS    PROCESS      │ 30518/tcp  any address  → …             head
//! > 6443 tcp   ::         kube-apiserv │   0.0.0.0:30518/tcp  service …
//!   ...                                │   ...                          main │ beside
//! ?help  /filter  g group  q quit                                               foot
//! ```

use ratatui::layout::Rect;

use super::state::View;

/// The smallest screen that anything is drawn on.
pub(super) const SMALLEST: (u16, u16) = (40, 8);

/// The parts of a screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScreenLayout {
    /// The line with the node.
    pub bar: Rect,
    /// The line with the views.
    pub tabs: Rect,
    /// The view; of ports without the names of columns.
    pub main: Rect,
    /// The names of columns, where there are any.
    pub head: Rect,
    /// The path beside the ports, where there is room.
    pub beside: Option<Rect>,
    /// The line with keys, messages and input.
    pub foot: Rect,
}

impl ScreenLayout {
    /// The parts of a screen of this size. `None` when it is too small.
    pub fn of(size: (u16, u16), view: View, wide: u16) -> Option<Self> {
        let (width, height) = size;
        if width < SMALLEST.0 || height < SMALLEST.1 {
            return None;
        }
        let line = |y: u16| Rect::new(0, y, width, 1);
        let beside = view == View::Ports && width >= wide.max(SMALLEST.0 * 2);
        let left = if beside { width / 2 } else { width };
        let has_head = view == View::Ports;
        let first = if has_head { 3 } else { 2 };
        Some(Self {
            bar: line(0),
            tabs: line(1),
            head: Rect::new(0, 2, left, u16::from(has_head)),
            main: Rect::new(0, first, left, height - first - 1),
            // One column is the line between both.
            beside: beside.then(|| Rect::new(left + 1, 2, width - left - 1, height - 3)),
            foot: line(height - 1),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_fill_the_screen_and_do_not_overlap() {
        for size in [(40, 8), (80, 24), (159, 50), (160, 50), (300, 80)] {
            for view in View::ALL {
                let layout = ScreenLayout::of(size, view, 160).unwrap();
                let height = layout.head.height + layout.main.height;
                assert_eq!(height + 3, size.1, "{size:?} {view:?}");
                assert_eq!(layout.beside.is_some(), view == View::Ports && size.0 >= 160);
                if let Some(beside) = layout.beside {
                    assert_eq!(layout.main.right() + 1, beside.x);
                    assert_eq!(beside.right(), size.0);
                }
            }
        }
    }

    #[test]
    fn a_screen_that_is_too_small_has_none() {
        assert_eq!(ScreenLayout::of((39, 24), View::Ports, 160), None);
        assert_eq!(ScreenLayout::of((80, 7), View::Ports, 160), None);
        assert_eq!(ScreenLayout::of((0, 0), View::Ports, 0), None);
    }
}
