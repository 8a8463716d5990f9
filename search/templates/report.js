const panels = document.querySelector(".panels");
const show = (id) => {
  for (const panel of panels.children) panel.classList.toggle("shown", panel.id === id);
};
panels.classList.add("live");
for (const link of document.querySelectorAll(".over a")) {
  const id = link.getAttribute("href").slice(1);
  for (const happening of ["pointerenter", "focus"]) link.addEventListener(happening, () => show(id));
  link.addEventListener("click", (event) => {
    event.preventDefault();
    show(id);
  });
}
