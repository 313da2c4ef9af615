"use strict";
(() => {
  const find = (id) => document.getElementById(id);
  if (!find("curve")) return;
  const { scores, rows, places, present, total } = JSON.parse(find("curve").textContent);
  const slider = find("slider");
  const flagged = document.querySelector("#flagged [clip-path]").getAttribute("clip-path");
  const window_ = document.querySelector(flagged.slice(4, -1) + " rect");
  const right = Number(window_.getAttribute("x")) + Number(window_.getAttribute("width"));
  const whole = (number) => number.toLocaleString("en");

  const value = (score) =>
    Math.abs(score) >= 1e6 ? whole(Math.round(score)) : score.toLocaleString("en", { maximumSignificantDigits: 6 });

  const share = (part) => {
    const digits = part === 0 || part === 1 ? 0 : part >= 0.1 ? 1 : part >= 0.01 ? 2 : 3;
    return (100 * part).toFixed(digits) + "\u202f%";
  };

  const change = (more) => (more === 0 ? "the same" : whole(Math.abs(more)) + (more > 0 ? " more" : " fewer"));

  const show = () => {
    const at = Number(slider.value);
    const score = value(scores[at]);
    find("tried-score").value = scores[at];
    find("tried-score").textContent = score;
    find("tried-rows").value = rows[at];
    find("tried-rows").textContent = whole(rows[at]);
    find("tried-share").textContent = share(rows[at] / total);
    find("tried-change").textContent = change(rows[at] - rows[present]);
    slider.setAttribute("aria-valuetext", "score " + score + ", " + whole(rows[at]) + " rows");
    window_.setAttribute("x", places[at]);
    window_.setAttribute("width", Math.max(0, right - places[at]));
    find("threshold").setAttribute("transform", "translate(" + (places[at] - places[present]) + " 0)");
    find("back").disabled = at === present;
  };

  slider.value = present;
  slider.addEventListener("input", show);
  find("back").addEventListener("click", () => {
    slider.value = present;
    show();
    slider.focus();
  });
  find("what-if").hidden = false;
  show();
})();
