"""The most frequent ways in browsers that Playwright does not drive: `bin/test-browsers` runs them."""
