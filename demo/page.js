/* Keyboard, links and what a screen reader hears. Gradio draws the page; this only presses its buttons. */
(() => {
  const say = (text) => {
    const place = document.getElementById("tt-said");
    if (place && place.textContent !== text) place.textContent = text;
  };

  window.trimtabLink = async (query) => {
    const address = location.origin + location.pathname + query;
    history.replaceState(null, "", address);
    const button = document.getElementById("link");
    let said = "Link copied";
    try {
      await navigator.clipboard.writeText(address);
    } catch {
      said = "The address bar has the link";
    }
    say(said);
    if (!button) return;
    const before = button.textContent;
    button.textContent = said;
    setTimeout(() => { button.textContent = before; }, 2000);
  };

  const seen = (element) => element && element.offsetParent !== null;
  const press = (selector) => {
    const button = [...document.querySelectorAll(selector)].find(seen);
    if (button && !button.disabled) button.click();
    return Boolean(button);
  };
  const typing = (element) => element.closest("input:not([type=radio]):not([type=checkbox]), textarea, select, [contenteditable]");
  const keys = {
    "/": () => {
      const field = [...document.querySelectorAll("#prompt textarea, #judge-prompt textarea, #preference-prompt textarea")].find(seen);
      if (field) field.focus();
      return Boolean(field);
    },
    t: () => press("#vote-tie"),
    x: () => press("#vote-none"),
    n: () => press("#judge-next"),
    "?": () => press("#keys > button, #keys .label-wrap"),
  };
  "abcdefgh".split("").forEach((letter, number) => {
    keys[letter] = keys[String(number + 1)] = () => press(`#vote-best-${number}`);
  });

  const placeholders = () => document.querySelectorAll(".tt-picker input:not([placeholder])").forEach((field) => {
    field.placeholder = "Search, or pick one …";
  });

  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && press("#stop, #judge-stop, #batch-stop")) return event.preventDefault();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      if (press("#send, #judge-send, #measure")) event.preventDefault();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
    const action = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (action && action()) event.preventDefault();
  });

  /* When all answers of a view are there, say so once. */
  let busy = false;
  new MutationObserver(() => {
    placeholders();
    const now = document.querySelectorAll('[data-state="busy"]').length > 0;
    if (now && !busy) say("Answers are being written");
    if (!now && busy) {
      const failed = document.querySelectorAll('[data-state="failed"]').length;
      say(failed ? `All answers have ended, ${failed} with an error` : "All answers are there");
    }
    busy = now;
  }).observe(document.documentElement, { subtree: true, childList: true });
})();
