// Light or dark, if the reader has chosen; else as the system says. Not a module: it must run
// before the first paint.
(() => {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");

  function stored() {
    try {
      return localStorage.getItem("theme");
    } catch {
      return null; // a browser may refuse to store
    }
  }

  function apply(theme) {
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
    else delete root.dataset.theme;
    dispatchEvent(new Event("theme"));
  }

  window.theme = {
    isDark: () => (root.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark",
    toggle() {
      const next = this.isDark() ? "light" : "dark";
      // The system's own choice is not stored, so that it is followed again.
      const isSystems = (next === "dark") === system.matches;
      try {
        if (isSystems) localStorage.removeItem("theme");
        else localStorage.setItem("theme", next);
      } catch {
        // The choice then lasts until the page is left.
      }
      apply(isSystems ? null : next);
    },
  };

  apply(stored());
  system.addEventListener("change", () => dispatchEvent(new Event("theme")));
})();
