// Pages of the settings: a button that copies. Without this script there is none, and the text can be marked.
"use strict";

for (const button of document.querySelectorAll("[data-copy]")) {
  const text = document.getElementById(button.dataset.copy);
  button.hidden = false;
  button.addEventListener("click", async () => {
    getSelection().selectAllChildren(text);
    try {
      await navigator.clipboard.writeText(text.textContent.trim());
      button.textContent = "Copied";
    } catch {
      // browsers give the clipboard to https and to this machine alone
      button.textContent = "Marked: press Ctrl+C";
    }
  });
}
