/**
 * The word lists of the synthetic corpus. They are short on purpose: a model of a few million parameters spends its
 * capacity on finding and copying, not on rare words, and nearly every word here becomes one token of the demo
 * tokenizer. All words are plain ASCII, one word each, and the lists do not overlap where a task needs to tell them
 * apart (keys are an adjective and a thing).
 */

const list = (words: string): readonly string[] => words.trim().split(/\s+/);

export const adjectives = list(`
  able ancient annual bare bitter blank bold brave brief bright brisk broad broken bronze busy calm careful cheap clean
  clear clever cold common cosy crisp crooked curious damp dark deep dim distant double dry dull dusty eager early easy
  empty equal faint fair famous fancy fast final fine firm flat fresh full gentle giant glad golden grand great grim
  hard harsh heavy hidden hollow honest huge humble idle inner jolly keen kind large late lazy light little lively lone
  long loose loud loyal lucky mellow mild modern narrow neat new noble noisy odd old open outer pale patient plain
  polite proud pure quick quiet rapid rare ready rough round royal rusty sharp shiny short shy silent simple slim slow
  small smooth soft solid sour spare steady steep stiff still strange strong sturdy sudden sweet swift tall tame thick
  thin tidy tiny tough true vast vivid warm weak wide wild wise young`);

export const things = list(`
  acorn anchor apron arch arrow badge ball banner barrel basin basket bell belt bench bicycle blanket boat bolt book
  boot bottle bow bowl box bracket branch brick bridge broom brush bucket button cabin cable camera candle canoe canvas
  card carpet cart castle chain chair chest chimney clock coat coin compass cord crate crown cup curtain cushion desk
  dial door drawer drill drum engine feather fence fiddle flag flask flute fork fountain frame garden gate glove goblet
  hammer harbor harp hat helmet hinge hook horn jar jewel kettle key kite knife ladder lamp lantern latch lens letter
  lever lock locket magnet mallet map marble mask medal mill mirror mitten motor nail napkin needle net notebook oar
  orchard paddle painting parcel path pebble pedal pen pencil piano pillow pipe pitcher plank plate plough pocket pole
  pot pulley pump purse puzzle quilt raft ribbon ring robe rocket rope rudder saddle sail scarf scroll shelf shield
  shoe shovel sled spade spoon spring stamp statue stool stove string suitcase sword table tent thimble thread ticket
  torch tower toy tray trumpet tunnel umbrella vase violin wagon wallet watch wheel whistle window wire`);

export const people = list(`
  Ada Adam Agnes Albert Alma Anna Arthur Basil Bella Bruno Carla Cecil Clara Conrad Cora David Della Edgar Edith Elias
  Ella Emil Enid Ernest Esther Felix Flora Frank Freda George Gerda Grace Gustav Hanna Harold Hazel Helen Henry Hilda
  Hugo Ida Igor Irene Iris Ivan Jacob Jane Jasper Joan Jonas Judith Julia Karl Laura Lena Leo Lewis Linda Lucas Lydia
  Mabel Marcus Maria Martha Martin Max Mira Mona Morris Nadia Nelson Nina Nora Norman Olga Oscar Otto Paula Peter Petra
  Philip Ralph Rita Robert Rosa Rufus Ruth Samuel Sarah Selma Silas Simon Sonia Stella Thea Theo Thomas Tilda Ursula
  Vera Victor Viola Walter Wanda William Zelda`);

export const towns = list(`
  Ashford Barton Belmont Brandon Brookfield Calder Camden Carlton Clifton Colby Dalton Denton Dover Easton Elmwood
  Fairview Fenwick Garland Glenwood Grafton Greenfield Halford Hampton Harlow Hilton Kendal Kingston Langley Linden
  Marlow Melrose Milford Newport Norton Oakford Orford Preston Ramsey Redhill Ripley Salford Selby Stanford Stratton
  Sutton Thornton Upton Walden Weston Whitby Winslow Wooden`);

export const trades = list(`
  actor baker barber brewer builder butcher carpenter clerk cook dancer dentist doctor driver farmer fisher florist
  gardener guard hunter jeweller judge lawyer librarian mason mechanic merchant miller miner nurse painter pilot
  plumber poet porter potter printer sailor sculptor shepherd singer smith surgeon tailor teacher waiter weaver writer`);

export const animals = list(`
  badger bear beaver camel cat cow crab crow deer dog dolphin donkey dove duck eagle falcon ferret fox frog goat goose
  hare hawk hen heron horse lamb lion lizard monkey mouse mule otter owl panda parrot pig pony rabbit raven robin seal
  sheep snail sparrow spider squirrel stork swan tiger toad turtle wolf`);

export const foods = list(`
  apples apricots bacon bananas barley beans beets berries biscuits bread butter cabbage cake carrots celery cheese
  cherries corn dates eggs figs garlic ginger grapes honey jam leeks lemons lentils melons milk mushrooms mustard nuts
  oats olives onions oranges peaches pears peas pepper plums potatoes pumpkin radishes rice salad salt soup spinach
  sugar tea toast tomatoes turnips walnuts yogurt`);

export const colours = list(`
  amber black blue brown copper cream crimson green grey ivory orange pink purple red silver teal violet white yellow`);

export const places = list(`
  attic bakery bank barn basement beach cave cellar chapel church clinic corner courtyard dock factory farm field forest
  garage hall hill hotel inn island kitchen lake library lighthouse market meadow museum office palace park pier pond
  porch port river roof school shop square stable station street studio temple theatre valley village yard`);

export const days = list("Monday Tuesday Wednesday Thursday Friday Saturday Sunday");

export const months = list("January February March April May June July August September October November December");

/** Verbs in the past tense that take an object. */
export const actions = list(`
  bought borrowed carried cleaned collected counted covered dropped examined fetched fixed found gave hid kept lifted
  lost measured mended moved noticed opened ordered packed painted picked placed polished pulled pushed received
  repaired returned sold stored tested took traded turned washed wrapped`);
