// Pages of the settings: a button that copies, and how a webhook's delivery ends. Without this script the text can be
// marked, and the page opened again.
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

// Soon at first, then ever more rarely: a receiver that is slow to answer is waited for up to half a minute.
function lookAgain(pause) {
  const tries = document.getElementById("tries");
  if (tries?.dataset.due === undefined || pause > 16000) return;
  setTimeout(async () => {
    // what somebody reads stays as it is
    if (!document.hidden && !document.querySelector("#tries details[open]")) await want("tries");
    lookAgain(pause * 1.5);
  }, pause);
}
lookAgain(700);
