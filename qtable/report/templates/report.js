const panels = document.querySelector(".panels");
const links = [...document.querySelectorAll('a[href^="#"]')];
const target = (link) => link.getAttribute("href").slice(1);
const show = (id) => {
  if (![...panels.children].some((panel) => panel.id === id)) return;
  for (const panel of panels.children) panel.classList.toggle("shown", panel.id === id);
  for (const link of links) link.classList.toggle("shown", target(link) === id);
};
const distance = (link, x, y) => {
  const box = link.getBoundingClientRect();
  return Math.hypot(box.x + box.width / 2 - x, box.y + box.height / 2 - y);
};
const reach = 24; // pixels from a finger's middle to the point that it means

panels.classList.add("live");
show(panels.querySelector(".shown").id);
show(location.hash.slice(1));
addEventListener("hashchange", () => show(location.hash.slice(1)));
for (const link of links) {
  for (const happening of ["focus", "click"]) link.addEventListener(happening, () => show(target(link)));
}
for (const over of document.querySelectorAll(".over")) {
  const points = [...over.querySelectorAll("a")];
  for (const point of points) point.addEventListener("pointerenter", () => show(target(point)));
  over.addEventListener("click", (event) => {
    event.preventDefault();
    if (!event.detail) return; // by the keyboard
    const far = (point) => distance(point, event.clientX, event.clientY);
    const nearest = points.reduce((a, b) => (far(b) < far(a) ? b : a));
    if (far(nearest) <= reach) show(target(nearest));
  });
}
